/** Charts as files of their own for docs/: SVG with its style inside, light and dark. */
import { niceTicks } from '../../src/evaluation/report/plots.ts';
import { html, markup } from '../../src/evaluation/report/markup.ts';
import type { Markup } from '../../src/evaluation/report/markup.ts';

const WIDTH = 720;
const STYLE = `
svg { --paper: #fbfaf7; --ink: #1e2023; --soft: #63666b; --rule: #e3dfd6; --a: #b4552a; --b: #35566b; --c: #6d8a3c; --d: #8a5a9e; }
@media (prefers-color-scheme: dark) { svg { --paper: #141618; --ink: #e9e6e0; --soft: #9b9da1; --rule: #2e3236; --a: #e38f5f; --b: #8db4cb; --c: #a9c77a; --d: #c79bd8; } }
.paper { fill: var(--paper); } text { font: 13px system-ui, "Segoe UI", "Noto Sans", sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); font-size: 12px; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--rule); } .mark { stroke: var(--soft); stroke-dasharray: 5 4; }
.a { --s: var(--a); } .b { --s: var(--b); } .c { --s: var(--c); } .d { --s: var(--d); }
.line { fill: none; stroke: var(--s); stroke-width: 2; } .whisker { stroke: var(--s); stroke-width: 2; opacity: 0.5; } .dot { fill: var(--s); } .faint { fill: var(--s); opacity: 0.4; } .name { fill: var(--s); font-weight: 600; }`;
const SERIES = ['a', 'b', 'c', 'd'];

type Scale = (value: number) => number;
const linear = (low: number, high: number, from: number, to: number): Scale => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
const percent = (value: number): string => `${Number((100 * value).toFixed(1))} %`;
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

function picture(title: string, height: number, body: readonly Markup[]): string {
  const drawing = html`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${title}"><style>${markup(STYLE)}</style><rect class="paper" width="${WIDTH}" height="${height}"/>${body}</svg>`;
  return `${drawing.markup}\n`;
}

export interface IntervalChart {
  readonly title: string;
  /** Values of one row's seeds, 0 to 1. */
  readonly rows: readonly { readonly name: string; readonly values: readonly number[] }[];
  readonly line: { readonly name: string; readonly value: number };
}

/** A row for each name: a faint dot for each seed, a dot at their mean, a bar from the lowest to the highest; a line to compare with. */
export function intervalChart({ title, rows, line }: IntervalChart): string {
  const all = [...rows.flatMap(({ values }) => values), line.value];
  const ticks = niceTicks(Math.min(...all), Math.max(...all), 6);
  const height = 70 + rows.length * 30;
  const bottom = height - 34;
  const x = linear(ticks[0] as number, ticks.at(-1) as number, 190, WIDTH - 80);
  return picture(title, height, [
    ...ticks.map((tick) => html`<line class="grid" x1="${x(tick)}" x2="${x(tick)}" y1="26" y2="${bottom}"/><text class="soft middle" x="${x(tick)}" y="${bottom + 18}">${percent(tick)}</text>`),
    html`<line class="mark" x1="${x(line.value)}" x2="${x(line.value)}" y1="26" y2="${bottom}"/><text class="soft middle" x="${x(line.value)}" y="18">${line.name} ${percent(line.value)}</text>`,
    ...rows.map(({ name, values }, index) => {
      const y = 46 + index * 30;
      return html`<g class="${SERIES[index % SERIES.length] as string}"><text x="16" y="${y + 4}">${name}</text><line class="whisker" x1="${x(Math.min(...values))}" x2="${x(Math.max(...values))}" y1="${y}" y2="${y}"/>${values.map((value) => html`<circle class="faint" cx="${x(value)}" cy="${y}" r="3.5"/>`)}<circle class="dot" cx="${x(mean(values))}" cy="${y}" r="5.5"/><text class="name end" x="${WIDTH - 12}" y="${y + 4}">${percent(mean(values))}</text></g>`;
    }),
  ]);
}

export interface CurveChart {
  readonly title: string;
  readonly xName: string;
  readonly series: readonly { readonly name: string; readonly points: readonly { readonly x: number; readonly values: readonly number[] }[] }[];
}

/** Accuracy over a count, which doubles at even steps: for each series a line through the means, a dot for each seed, bars from lowest to highest. */
export function curveChart({ title, xName, series }: CurveChart): string {
  const all = series.flatMap(({ points }) => points.flatMap(({ values }) => values));
  const counts = [...new Set(series.flatMap(({ points }) => points.map((point) => point.x)))].toSorted((a, b) => a - b);
  const ticks = niceTicks(Math.min(...all), Math.max(...all), 6);
  const [height, top, bottom] = [380, 40, 330];
  const y = linear(ticks[0] as number, ticks.at(-1) as number, bottom, top);
  const x = linear(Math.log(counts[0] as number), Math.log(counts.at(-1) as number), 84, WIDTH - 48);
  return picture(title, height, [
    ...ticks.map((tick) => html`<line class="grid" x1="60" x2="${WIDTH - 24}" y1="${y(tick)}" y2="${y(tick)}"/><text class="soft end" x="52" y="${y(tick) + 4}">${percent(tick)}</text>`),
    ...counts.map((value) => html`<text class="soft middle" x="${x(Math.log(value))}" y="${bottom + 20}">${value}</text>`),
    html`<text class="soft middle" x="${WIDTH / 2}" y="${height - 10}">${xName}</text>`,
    ...series.map(({ name, points }, index) => {
      const shift = 6 * (index - (series.length - 1) / 2);
      const at = (value: number): number => x(Math.log(value)) + shift;
      const path = points.map((point, i) => `${i === 0 ? 'M' : 'L'}${at(point.x).toFixed(1)} ${y(mean(point.values)).toFixed(1)}`).join('');
      return html`<g class="${SERIES[index % SERIES.length] as string}"><text class="name" x="${60 + index * 150}" y="22">${name}</text><path class="line" d="${path}"/>${points.map((point) => html`<line class="whisker" x1="${at(point.x)}" x2="${at(point.x)}" y1="${y(Math.min(...point.values))}" y2="${y(Math.max(...point.values))}"/>${point.values.map((value) => html`<circle class="faint" cx="${at(point.x)}" cy="${y(value)}" r="3"/>`)}<circle class="dot" cx="${at(point.x)}" cy="${y(mean(point.values))}" r="5"/>`)}</g>`;
    }),
  ]);
}
