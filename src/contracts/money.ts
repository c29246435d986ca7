/**
 * Money, exact. An amount is a number of dollars that stands for a whole number of billionths of one:
 * sums are made in whole billionths, so that they never drift and a limit means what it says. Exact up
 * to two million dollars (2^51 billionths); a price of $0.001 a million tokens is one billionth a token.
 */
const BILLIONTHS = 1e9;
/** What floating-point arithmetic may have added to an amount, in billionths. */
const SLACK = 1e-4;

const billionths = (usd: number): number => Math.round(usd * BILLIONTHS);

export function addUsd(...amounts: readonly number[]): number {
  return amounts.reduce((sum, usd) => sum + billionths(usd), 0) / BILLIONTHS;
}

export function subtractUsd(usd: number, ...amounts: readonly number[]): number {
  return amounts.reduce((rest, amount) => rest - billionths(amount), billionths(usd)) / BILLIONTHS;
}

/** An upper bound stays one. */
export function roundUsdUp(usd: number): number {
  return Math.ceil(usd * BILLIONTHS - SLACK) / BILLIONTHS;
}

/** Every digit that counts, two at least: `$0.20`, `$0.000012`. */
export function formatUsd(usd: number): string {
  return `$${(billionths(usd) / BILLIONTHS).toFixed(9).replace(/0{1,7}$/, '')}`;
}
