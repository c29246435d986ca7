/** What a bench says of repeated turns: their middle and their range. */

const rounded = (value: number): number => Math.round(value * 1_000) / 1_000;

export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

export function spread(numbers: readonly number[]): Spread {
  const sorted = numbers.toSorted((a, b) => a - b);
  return { median: rounded(sorted[Math.floor(sorted.length / 2)] ?? NaN), lowest: rounded(sorted[0] ?? NaN), highest: rounded(sorted.at(-1) ?? NaN) };
}
