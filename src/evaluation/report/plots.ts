/**
 * Plots as inline SVG. Colours come from the page's custom properties through classes, so that one
 * drawing serves light and dark. Coordinates are viewBox units, about a pixel each.
 */
import type { Interval } from '../../contracts/state.ts';
import { html } from './markup.ts';
import type { Markup } from './markup.ts';

const WIDTH = 460;
const HEIGHT = 240;
const PLOT = { left: 48, right: WIDTH - 14, top: 14, bottom: HEIGHT - 34 };

type Scale = (value: number) => number;

function linear(low: number, high: number, from: number, to: number): Scale {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

/** Round numbers from just below `low` to just above `high`, about `wanted` of them. */
export function niceTicks(low: number, high: number, wanted = 5): number[] {
  const raw = Math.max(high - low, 1e-9) / wanted;
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * magnitude >= raw) ?? 10) * magnitude;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

function figure(title: string, height: number, body: readonly Markup[]): Markup {
  return html`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${title}">${body}</svg>`;
}

function yAxis(ticks: readonly number[], y: Scale, format: (value: number) => string): Markup[] {
  return ticks.map((tick) => html`<line class="grid" x1="${PLOT.left}" x2="${PLOT.right}" y1="${y(tick)}" y2="${y(tick)}"/><text class="tick end" x="${PLOT.left - 8}" y="${y(tick) + 4}">${format(tick)}</text>`);
}

const xLabel = (text: string): Markup => html`<text class="axis middle" x="${(PLOT.left + PLOT.right) / 2}" y="${HEIGHT - 2}">${text}</text>`;

/** How scores are written and where their axis has marks. */
interface ScoreAxis {
  readonly format: (score: number) => string;
  readonly ticks: (low: number, high: number, wanted: number) => readonly number[];
  readonly tick: (score: number) => string;
}

export interface IntervalRow {
  readonly name: string;
  readonly className: string;
  readonly interval: Interval;
}

/** A dot with its 95 % interval for each row, one below the other. */
export function intervalPlot(rows: readonly IntervalRow[], { format, ticks: ticksOf, tick: tickFormat }: ScoreAxis, title: string): Markup {
  const low = Math.min(...rows.map((row) => row.interval.low));
  const high = Math.max(...rows.map((row) => row.interval.high));
  const ticks = ticksOf(low, high, 5);
  const height = 34 + rows.length * 40;
  const left = 84;
  const x = linear(ticks[0] as number, ticks.at(-1) as number, left, WIDTH - 64);
  const bottom = height - 26;
  return figure(title, height, [
    ...ticks.map((tick) => html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="6" y2="${bottom}"/><text class="tick middle" x="${x(tick)}" y="${bottom + 17}">${tickFormat(tick)}</text>`),
    ...rows.map(({ name, className, interval }, index) => {
      const y = 26 + index * 40;
      return html`<g class="${className}"><text class="name" x="0" y="${y + 4}">${name}</text><line class="whisker" x1="${x(interval.low)}" x2="${x(interval.high)}" y1="${y}" y2="${y}"/><circle class="dot" cx="${x(interval.mean)}" cy="${y}" r="5.5"/><text class="value" x="${WIDTH - 4}" y="${y + 4}" text-anchor="end">${format(interval.mean)}</text></g>`;
    }),
  ]);
}

export interface RoundPoint {
  readonly round: number;
  readonly student: Interval;
  readonly teacher: number;
}

/** The student's score on the development rows by round, its interval, and the teacher as a line. */
export function roundsPlot(points: readonly RoundPoint[], { format, ticks: ticksOf, tick: tickFormat }: ScoreAxis): Markup {
  const ticks = ticksOf(Math.min(...points.flatMap((point) => [point.student.low, point.teacher])), Math.max(...points.flatMap((point) => [point.student.high, point.teacher])), 4);
  const y = linear(ticks[0] as number, ticks.at(-1) as number, PLOT.bottom, PLOT.top);
  const x = linear(0.5, points.length + 0.5, PLOT.left, PLOT.right);
  const path = (values: readonly number[]): string => values.map((value, index) => `${index === 0 ? 'M' : 'L'}${x(index + 1).toFixed(1)} ${y(value).toFixed(1)}`).join('');
  const teacher = points.map((point) => point.teacher);
  const first = teacher[0] as number;
  const last = teacher.at(-1) as number;
  return figure('Development score by round', HEIGHT, [
    ...yAxis(ticks, y, tickFormat),
    html`<g class="teacher"><path class="line dashed" d="M${PLOT.left} ${y(first)}${continued(path(teacher))}L${PLOT.right} ${y(last)}"/><text class="value" x="${PLOT.left + 4}" y="${y(first) - 7}">teacher ${format(first)}</text></g>`,
    html`<g class="student"><path class="line" d="${path(points.map((point) => point.student.mean))}"/>${points.map((point, index) => html`<line class="whisker" x1="${x(index + 1)}" x2="${x(index + 1)}" y1="${y(point.student.low)}" y2="${y(point.student.high)}"/><circle class="dot" cx="${x(index + 1)}" cy="${y(point.student.mean)}" r="5"/><text class="value" x="${x(index + 1) + 10}" y="${y(point.student.mean) + (point.student.mean >= point.teacher ? -9 : 19)}">${format(point.student.mean)}</text>`)}</g>`,
    ...points.map((point, index) => html`<text class="tick middle" x="${x(index + 1)}" y="${PLOT.bottom + 16}">${point.round}</text>`),
    xLabel('round'),
  ]);
}

export interface ContestantLine {
  readonly name: string;
  readonly status: string;
  readonly measured: readonly { readonly epoch: number; readonly score: number }[];
}

/** Each contestant's score where it was measured; the winner's line in the student's colour, names at the lines' ends, none over another. */
export function contestantsPlot(contestants: readonly ContestantLine[], { ticks: ticksOf, tick: tickFormat }: Omit<ScoreAxis, 'format'>): Markup {
  const points = contestants.flatMap(({ measured }) => measured);
  const ticks = ticksOf(Math.min(...points.map(({ score }) => score)), Math.max(...points.map(({ score }) => score)), 4);
  const right = PLOT.right - 96;
  const y = linear(ticks[0] as number, ticks.at(-1) as number, PLOT.bottom, PLOT.top);
  const last = Math.max(...points.map(({ epoch }) => epoch));
  const x = linear(1, last, PLOT.left + 8, right);
  const epochs = [...new Set(points.map(({ epoch }) => epoch))].sort((a, b) => a - b);
  let below = -Infinity;
  const labels = contestants
    .map(({ name, measured }) => ({ name, end: measured.at(-1) as ContestantLine['measured'][number] }))
    .sort((a, b) => y(a.end.score) - y(b.end.score))
    .map(({ name, end }) => ({ name, x: x(end.epoch) + 9, y: (below = Math.max(y(end.score) + 4, below + 13)) }));
  return figure('Development score by epoch and contestant', HEIGHT, [
    ...yAxis(ticks, y, tickFormat),
    ...contestants.toSorted((a, b) => Number(a.status === 'winner') - Number(b.status === 'winner')).map(({ status, measured }) =>
      html`<g class="${status === 'winner' ? 'student' : 'teacher'}"><path class="line${status === 'winner' ? '' : ' dashed'}" d="${measured.map(({ epoch, score }, index) => `${index === 0 ? 'M' : 'L'}${x(epoch).toFixed(1)} ${y(score).toFixed(1)}`).join('')}"/>${measured.map(({ epoch, score }) => html`<circle class="dot" cx="${x(epoch)}" cy="${y(score)}" r="4"/>`)}</g>`),
    ...labels.map((label) => html`<text class="name" x="${label.x}" y="${label.y}">${label.name}</text>`),
    ...epochs.map((epoch) => html`<text class="tick middle" x="${x(epoch)}" y="${PLOT.bottom + 16}">${epoch}</text>`),
    xLabel('epoch'),
  ]);
}

/** The teacher's path goes on where its own first point is drawn: L instead of M. */
const continued = (path: string): string => path.replace(/^M/, 'L');

/** Loss of each step, faint, with its exponential moving average, and the development loss where it was measured. */
export function lossPlot(losses: readonly number[], epochStarts: readonly number[], measured: readonly { readonly index: number; readonly lossNats: number }[] = []): Markup {
  const thinned = thin(losses, 400);
  const smooth: number[] = [];
  for (const loss of losses) smooth.push(smooth.length === 0 ? loss : 0.75 * (smooth.at(-1) as number) + 0.25 * loss);
  const development = measured.map(({ index, lossNats }) => [index, lossNats] as const);
  const ticks = niceTicks(0, Math.max(...[...thinned, ...development].map(([, value]) => value)), 4);
  const y = linear(ticks[0] as number, ticks.at(-1) as number, PLOT.bottom, PLOT.top);
  const x = linear(0, Math.max(1, losses.length - 1), PLOT.left, PLOT.right);
  const path = (values: readonly (readonly [number, number])[]): string => values.map(([step, value], index) => `${index === 0 ? 'M' : 'L'}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join('');
  const steps = niceTicks(0, losses.length, 5).filter((tick) => tick <= losses.length && Number.isInteger(tick));
  return figure('Training loss by step', HEIGHT, [
    ...yAxis(ticks, y, (value) => String(value)),
    ...epochStarts.slice(1).map((step, index) => html`<line class="mark" x1="${x(step)}" x2="${x(step)}" y1="${PLOT.top}" y2="${PLOT.bottom}"/><text class="tick" x="${x(step) + 5}" y="${PLOT.top + 10}">epoch ${index + 2}</text>`),
    html`<g class="student"><path class="line faint" d="${path(thinned)}"/><path class="line" d="${path(thin(smooth, 400))}"/></g>`,
    html`<g class="teacher"><path class="line dashed" d="${path(development)}"/>${development.map(([index, value]) => html`<circle class="dot" cx="${x(index).toFixed(1)}" cy="${y(value).toFixed(1)}" r="3"/>`)}</g>`,
    ...steps.map((tick) => html`<text class="tick middle" x="${x(Math.min(tick, losses.length - 1))}" y="${PLOT.bottom + 16}">${tick}</text>`),
    xLabel('optimizer step'),
  ]);
}

/** At most `most` values, evenly spaced, with their positions. */
function thin(values: readonly number[], most: number): readonly (readonly [number, number])[] {
  const stride = Math.max(1, Math.ceil(values.length / most));
  return values.map((value, index) => [index, value] as const).filter(([index]) => index % stride === 0 || index === values.length - 1);
}

/** How many values fall into each of 20 equal bins up to 1. */
export function confidencePlot(confidences: readonly number[]): Markup {
  const low = Math.min(0.95, Math.floor(Math.min(...confidences) * 20) / 20);
  const bins = new Array<number>(20).fill(0);
  for (const confidence of confidences) {
    const bin = Math.min(19, Math.floor(((confidence - low) / (1 - low)) * 20));
    bins[bin] = (bins[bin] as number) + 1;
  }
  const ticks = niceTicks(0, Math.max(...bins), 4);
  const y = linear(0, ticks.at(-1) as number, PLOT.bottom, PLOT.top);
  const x = linear(low, 1, PLOT.left, PLOT.right);
  const step = (PLOT.right - PLOT.left) / 20;
  return figure('Confidence of the accepted rows', HEIGHT, [
    ...yAxis(ticks, y, (value) => String(value)),
    html`<g class="teacher">${bins.map((size, index) => html`<rect class="bar" x="${PLOT.left + index * step + 1}" width="${step - 2}" y="${y(size)}" height="${PLOT.bottom - y(size)}"/>`)}</g>`,
    ...niceTicks(low, 1, 5).filter((tick) => tick >= low - 1e-9 && tick <= 1).map((tick) => html`<text class="tick middle" x="${x(tick)}" y="${PLOT.bottom + 16}">${tick}</text>`),
    xLabel('teacher’s confidence in its label'),
  ]);
}

/** Horizontal bars, each with its name and number. */
export function barsPlot(bars: readonly { readonly name: string; readonly value: number }[], title: string): Markup {
  const most = Math.max(...bars.map((bar) => bar.value));
  const x = linear(0, most, 0, WIDTH - 130 - 46);
  return figure(title, bars.length * 30 + 12, bars.map(({ name, value }, index) => {
    const y = 8 + index * 30;
    return html`<g class="teacher"><text class="name end" x="120" y="${y + 15}">${name}</text><rect class="bar" x="130" y="${y + 2}" width="${Math.max(1, x(value))}" height="18" rx="1.5"/><text class="value" x="${136 + x(value)}" y="${y + 16}">${value}</text></g>`;
  }));
}

export interface ClassBars {
  readonly label: string;
  readonly support: number;
  readonly bars: readonly { readonly className: string; readonly value: number }[];
}

/** F1 of each class, contestants side by side. */
export function classPlot(classes: readonly ClassBars[]): Markup {
  const y = linear(0, 1, PLOT.bottom, PLOT.top + 6);
  const group = (PLOT.right - PLOT.left) / classes.length;
  return figure('F1 by class', HEIGHT, [
    ...yAxis([0, 0.25, 0.5, 0.75, 1], y, (value) => String(value)),
    ...classes.map(({ label, support, bars }, index) => {
      const width = Math.min(34, (group * 0.72) / bars.length);
      const start = PLOT.left + group * (index + 0.5) - (width * bars.length) / 2;
      return html`${bars.map((bar, position) => html`<g class="${bar.className}"><rect class="bar" x="${start + position * width + 1.5}" width="${width - 3}" y="${y(bar.value)}" height="${PLOT.bottom - y(bar.value)}" rx="1.5"/>${width >= 26 && html`<text class="small middle" x="${start + (position + 0.5) * width}" y="${y(bar.value) - 5}">${bar.value.toFixed(2)}</text>`}</g>`)}<text class="name middle" x="${PLOT.left + group * (index + 0.5)}" y="${PLOT.bottom + 17}">${label}</text><text class="tick middle" x="${PLOT.left + group * (index + 0.5)}" y="${PLOT.bottom + 32}">${support} rows</text>`;
    }),
  ]);
}
