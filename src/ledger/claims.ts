/** Which claims live: leases that are renewed, and processes of this machine that are looked for. */
import { hostname } from 'node:os';
import { identityOf, isAlive } from '../assets/lock.ts';
import type { Row } from './rows.ts';

/** A claim of another machine whose process died is held for so long; one of this machine is found dead at once. */
export const LEASE_MS = 30_000;
/** Twice in a lease may a renewal be late. */
export const RENEW_EVERY_MS = LEASE_MS / 3;

/** A claim of another machine that was not renewed for so long after its lease is removed: its machine is away for good, or was given another name. */
const FORGET_AFTER_MS = 24 * 3_600_000;

/** Column values of a claim of this process. */
export function ownClaim(): { readonly host: string; readonly pid: number; readonly startTicks: string | null } {
  return { host: hostname(), pid: process.pid, startTicks: identityOf(process.pid)?.startTicks ?? null };
}

export function isLiving(claim: Row | undefined, nowMs: number): boolean {
  if (claim === undefined || Number(claim['aliveUntilMs']) < nowMs) return false;
  return claim['host'] !== hostname() || isProcessAlive(claim);
}

/** Whether nobody will renew it any more. A process that only sleeps renews its claim when it wakes. */
export function isGone(claim: Row, nowMs: number): boolean {
  if (claim['host'] === hostname()) return !isProcessAlive(claim);
  return Number(claim['aliveUntilMs']) + FORGET_AFTER_MS < nowMs;
}

function isProcessAlive({ pid, startTicks }: Row): boolean {
  return isAlive({ pid: Number(pid), ...(typeof startTicks === 'string' ? { startTicks } : {}) });
}
