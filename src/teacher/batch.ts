/**
 * Asking through a provider's batch service, so that no step of it is lost or done twice: the submission
 * is in the ledger before the file is sent, the provider's batch carries its id, and whoever comes next
 * (another attempt, another worker, another campaign with the same question) goes on where it stands.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherAnswer } from '../contracts/records.ts';
import type { Claim, Ledger, LedgerCall, LedgerKey } from '../ledger/ledger.ts';
import type { Submission } from '../ledger/submissions.ts';
import type { BatchService } from './batch-service.ts';

export interface BatchTimings {
  /** Until the first look at a running batch; doubled after each look, up to 32 times as long. */
  readonly pollMs: number;
  /** How long one attempt watches; then it makes room for others and is tried again after `awayMs`. */
  readonly watchMs: number;
  readonly awayMs: number;
  /** A batch whose creation nobody noted shows in the provider's list by then, or does not exist. */
  readonly settleMs: number;
}
export const BATCH_TIMINGS: BatchTimings = { pollMs: 2_000, watchMs: 300_000, awayMs: 60_000, settleMs: 30_000 };

/** The share of the deadline after which what is left is asked one by one. */
const LIVE_FROM = 0.9;
/** The provider allows 50,000 lines and 200 MB a file. */
const MAX_LINES = 10_000;
const MAX_BYTES = 150_000_000;

export interface BatchAsking {
  readonly ledger: Ledger;
  /** Opened when it is needed. */
  readonly service: () => BatchService;
  readonly claim: Claim;
  /** The batch that pays for it: its deadline counts from its own first asking, however old the questions are. */
  readonly batch: string;
  readonly timings: BatchTimings;
  /** Absent: nothing new is handed in, only what is at the provider already is waited for. */
  readonly deadlineHours?: number | undefined;
  /** What has no answer yet. */
  readonly missing: () => readonly LedgerCall[];
  readonly onAnswered: (answers: readonly { readonly key: LedgerKey; readonly answer: TeacherAnswer }[]) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Returns when none of the missing questions is at the provider any more: they are answered, or what is
 * left is to be asked one by one. PENDING, with the time to come back, while a batch runs on.
 */
export async function askInBatches(asking: BatchAsking): Promise<void> {
  const { ledger, timings, signal, deadlineHours } = asking;
  const startedMs = performance.now();
  const late = deadlineHours === undefined ? undefined : await lateAfter(ledger, asking.batch, deadlineHours);
  for (let looks = 0; ; looks += 1) {
    stopIfAborted(signal);
    const missing = asking.missing();
    if (missing.length === 0) return;
    const keys = missing.map(({ key }) => key);
    const holding = await ledger.submissions.holding(keys);
    if (holding.length === 0) {
      if (late === undefined || late() || !(await handIn(asking, missing))) return;
      looks = 0;
      continue;
    }
    let waits: string | undefined;
    for (const submission of holding) waits = (await goOn(asking, submission, late?.() === true)) ?? waits;
    if (waits === undefined) continue;
    if (performance.now() - startedMs > timings.watchMs) throw new StillhouseError('PENDING', waits, { retryAfterMs: timings.awayMs });
    await sleep(timings.pollMs * 2 ** Math.min(5, looks), undefined, signal === undefined ? {} : { signal }).catch(() => stopIfAborted(signal));
  }
}

function stopIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new StillhouseError('CANCELLED', 'stopped while waiting for a batch; it goes on at the provider');
}

async function lateAfter(ledger: Ledger, batch: string, deadlineHours: number): Promise<() => boolean> {
  const liveFromMs = (await ledger.submissions.begunAtMs(batch)) + deadlineHours * 3_600_000 * LIVE_FROM;
  return () => Date.now() >= liveFromMs;
}

/** Hands in what nobody asks; false when nothing was, because others ask. */
async function handIn({ ledger, claim }: BatchAsking, missing: readonly LedgerCall[]): Promise<boolean> {
  let opened = false;
  for (const calls of files(missing)) opened = (await ledger.submissions.open(randomUUID(), calls, claim)) !== undefined || opened;
  return opened;
}

/** Calls in files that the provider takes. */
function files(calls: readonly LedgerCall[]): readonly (readonly LedgerCall[])[] {
  const all: LedgerCall[][] = [];
  let bytes = Infinity;
  for (const call of calls) {
    const size = Buffer.byteLength(call.request) + 500;
    if (bytes + size > MAX_BYTES || (all.at(-1)?.length ?? 0) >= MAX_LINES) {
      all.push([]);
      bytes = 0;
    }
    all.at(-1)?.push(call);
    bytes += size;
  }
  return all;
}

/** The next step of a submission: undefined when it is over, else what is waited for. */
async function goOn(asking: BatchAsking, submission: Submission, late: boolean): Promise<string | undefined> {
  const { ledger } = asking;
  const service = asking.service();
  const providerId = submission.providerId ?? (await send(asking, submission));
  if (providerId === undefined) return 'a batch is being handed in, or was when its worker died';
  const state = await service.poll(providerId);
  if (state.kind === 'refused') {
    // Its questions are nobody's again, and none was answered.
    await ledger.submissions.close(submission.id, [...(await ledger.submissions.questions(submission.id)).keys()]);
    throw state.error;
  }
  if (state.kind === 'ended') {
    await collect(asking, submission, providerId);
    return undefined;
  }
  if (late && !state.cancelling) await service.cancel(providerId);
  return `the batch ${providerId} has answered ${state.done} of ${state.total} questions`;
}

/** Sends a submission whose batch nobody has noted, unless the provider has it already. */
async function send({ ledger, service: open, claim, timings }: BatchAsking, { id, createdAtMs }: Submission): Promise<string | undefined> {
  const service = open();
  const taken = await ledger.submissions.take(id, claim);
  if (taken === undefined) return undefined;
  if (taken === 'taken over') {
    const known = await service.find(id, createdAtMs);
    if (known !== undefined) {
      await ledger.submissions.note(id, known);
      return known;
    }
    if (Date.now() < createdAtMs + timings.settleMs) return undefined;
  }
  const providerId = await service.submit(id, await ledger.submissions.questions(id));
  await ledger.submissions.note(id, providerId);
  return providerId;
}

async function collect({ ledger, service: open, onAnswered }: BatchAsking, { id }: Submission, providerId: string): Promise<void> {
  const unbilled: LedgerKey[] = [];
  try {
    await open().collect(providerId, await ledger.submissions.questions(id), async (lines) => {
      const answers = lines.flatMap((line) => ('answer' in line ? [line] : []));
      unbilled.push(...lines.flatMap((line) => ('answer' in line ? [] : [line.key])));
      await ledger.recordLosses(answers.flatMap(({ key, lost }) => (lost === undefined ? [] : [{ key, bound: lost }])));
      await ledger.recordAnswers(answers);
      onAnswered(answers);
    });
  } catch (error) {
    // A question that fails for good ends the asking; what could not be read is tried again.
    if (error instanceof StillhouseError && ['UNAVAILABLE', 'RATE_LIMITED', 'CANCELLED', 'DISK_FULL'].includes(error.code)) throw error;
    await ledger.submissions.close(id, unbilled);
    throw error;
  }
  await ledger.submissions.close(id, unbilled);
}
