/** The highest resident memory of this process, mapped files included, as Linux counts it (proc(5), clear_refs and VmHWM). */
import { readFileSync, writeFileSync } from 'node:fs';

/** Since the start of the process, or since `forgetPeak`. */
export function peakSince(): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1_024;
}

/** Returns the peak so far and begins anew: what loading took is not what training takes. */
export function forgetPeak(): number {
  const peak = peakSince();
  writeFileSync('/proc/self/clear_refs', '5');
  return peak;
}
