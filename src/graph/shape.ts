/**
 * Shapes whose dimensions are numbers or symbols. A symbol is a name (`T`), a product (`3*T`) or a
 * sum in parentheses (`(P+T)`), always in one canonical spelling, so that equal strings mean equal sizes.
 */
import { StillhouseError } from '../contracts/errors.ts';

export type Dim = number | string;
export type Shape = readonly Dim[];

export function formatShape(shape: Shape): string {
  return `(${shape.join(', ')})`;
}

/** Splits at `separator` outside of parentheses. */
function splitOutside(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '(') depth++;
    else if (character === ')') depth--;
    else if (character === separator && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

export function multiplyDims(dims: Shape): Dim {
  let coefficient = 1;
  const symbols: string[] = [];
  for (const dim of dims) {
    for (const factor of typeof dim === 'number' ? [dim] : splitOutside(dim, '*')) {
      if (typeof factor === 'number') coefficient *= factor;
      else if (/^\d+$/.test(factor)) coefficient *= Number(factor);
      else symbols.push(factor);
    }
  }
  if (symbols.length === 0 || coefficient === 0) return coefficient;
  symbols.sort();
  return [...(coefficient === 1 ? [] : [String(coefficient)]), ...symbols].join('*');
}

export function addDims(dims: Shape): Dim {
  let constant = 0;
  const counts = new Map<string, number>(); // of each symbol, so that T+T is 2*T
  for (const dim of dims) {
    const terms = typeof dim === 'string' && dim.startsWith('(') && dim.endsWith(')') ? splitOutside(dim.slice(1, -1), '+') : [dim];
    for (const term of terms) {
      const numeric = typeof term === 'number' || /^\d+$/.test(term);
      if (numeric) constant += Number(term);
      else {
        const [first = '', ...rest] = splitOutside(term, '*');
        const coefficient = /^\d+$/.test(first) ? Number(first) : 1;
        const symbol = coefficient === 1 && first !== '1' ? term : rest.join('*');
        counts.set(symbol, (counts.get(symbol) ?? 0) + coefficient);
      }
    }
  }
  if (counts.size === 0) return constant;
  const terms = [...counts].map(([symbol, count]) => (count === 1 ? symbol : `${count}*${symbol}`)).sort();
  if (constant !== 0) terms.push(String(constant));
  return terms.length === 1 ? (terms[0] as string) : `(${terms.join('+')})`;
}

/** The size of a dimension where its symbols have these; INTERNAL for a symbol without one. */
export function evaluateDim(dim: Dim, sizes: Readonly<Record<string, number>>): number {
  if (typeof dim === 'number') return dim;
  if (dim.startsWith('(') && dim.endsWith(')')) return splitOutside(dim.slice(1, -1), '+').reduce((sum, term) => sum + evaluateDim(term, sizes), 0);
  const factors = splitOutside(dim, '*');
  if (factors.length > 1) return factors.reduce((product, factor) => product * evaluateDim(factor, sizes), 1);
  const size = /^\d+$/.test(dim) ? Number(dim) : sizes[dim];
  if (size === undefined) throw new StillhouseError('INTERNAL', `dimension ${dim}: expected a size, got ${JSON.stringify(sizes)}`);
  return size;
}

/** The NumPy rule. A symbol and a number other than 1 never match: one of them is wrong. */
export function broadcastShapes(a: Shape, b: Shape, where: string): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const left = a[i - rank + a.length] ?? 1;
    const right = b[i - rank + b.length] ?? 1;
    if (left === right || right === 1) return left;
    if (left === 1) return right;
    throw new StillhouseError('INTERNAL', `${where}: expected shapes that broadcast, got ${formatShape(a)} and ${formatShape(b)}`);
  });
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** A negative axis counts from the end. */
export function resolveAxis(axis: number, rank: number, where: string): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(resolved) || resolved < 0 || resolved >= rank) {
    throw new StillhouseError('INTERNAL', `${where}: expected an axis of ${rank} dimensions, got ${axis}`);
  }
  return resolved;
}
