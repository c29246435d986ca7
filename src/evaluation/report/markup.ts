/** Markup that is safe by construction, and numbers as people read them. */

/** Text that is HTML or SVG already. */
export interface Markup {
  readonly markup: string;
}
type Part = string | number | Markup | undefined | false | readonly Part[];

/** Template for HTML and SVG: every value is escaped unless it is Markup; lists are joined; undefined and false are left out. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return { markup: strings.reduce((text, piece, index) => text + render(parts[index - 1]) + piece) };
}

function render(part: Part): string {
  if (part === undefined || part === false) return '';
  if (typeof part === 'string') return escapeText(part);
  if (typeof part === 'number') return String(Math.round(part * 100) / 100);
  if ('markup' in part) return part.markup;
  return part.map(render).join('');
}

function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

export const markup = (text: string): Markup => ({ markup: text });

const THIN_SPACE = '\u202f';

export const percent = (value: number, digits = 1): string => `${(value * 100).toFixed(digits)}${THIN_SPACE}%`;
export const percentRange = (low: number, high: number): string => `${(low * 100).toFixed(1)} – ${percent(high)}`;
/** Thousands set apart by a thin space: 98 362 432. */
export const count = (value: number): string => String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, THIN_SPACE);
export const dollars = (value: number): string => `$${value === 0 || value >= 1 ? value.toFixed(2) : value.toPrecision(2)}`;

export function size(bytes: number): string {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)}${THIN_SPACE}kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)}${THIN_SPACE}MB` : `${(bytes / 1e9).toFixed(2)}${THIN_SPACE}GB`;
}

export function parameterCount(parameters: number): string {
  return parameters < 1e9 ? `${(parameters / 1e6).toFixed(0)}${THIN_SPACE}M` : `${(parameters / 1e9).toFixed(1)}${THIN_SPACE}B`;
}

/** 0.8 s, 42 s, 3 min 05 s, 2 h 07 min. */
export function duration(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 10) return `${seconds.toFixed(1)}${THIN_SPACE}s`;
  if (seconds < 59.5) return `${Math.round(seconds)}${THIN_SPACE}s`;
  const minutes = Math.round(seconds) / 60;
  const pad = (value: number): string => String(value).padStart(2, '0');
  if (minutes < 60) return `${Math.floor(minutes)}${THIN_SPACE}min ${pad(Math.round(seconds) % 60)}${THIN_SPACE}s`;
  return `${Math.floor(Math.round(minutes) / 60)}${THIN_SPACE}h ${pad(Math.round(minutes) % 60)}${THIN_SPACE}min`;
}

export const milliseconds = (value: number): string => `${value < 10 ? value.toFixed(1) : count(value)}${THIN_SPACE}ms`;
/** 2026-06-21 14:03 UTC. */
export const instant = (ms: number): string => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
