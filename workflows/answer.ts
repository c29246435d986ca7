/** Has teachers and judges answer planned requests, batch by batch, within the budget and over changes of teacher. */
import type { CampaignContext, PlannedRequests, ReassignRequestsInput } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { Cost } from '../src/contracts/state.ts';
import { timesCost } from './money.ts';
import type { CampaignRun } from './run.ts';
import { rowWork, teacher } from './run.ts';
import { batchRanges } from './state.ts';

/** Six events a batch at worst: these bounds and an ordinary number of epochs keep a round's history under 500. */
const MAX_TRAINING_BATCHES = 32;
const MAX_EVALUATION_BATCHES = 10;

interface Range {
  readonly from: number;
  readonly to: number;
}

/** Planned requests, and the spec that they were planned for: its teacher is the one that they go to. */
export type Planned = PlannedRequests & Pick<CampaignContext, 'spec'>;

export function plan(run: CampaignRun, what: string, call: (context: CampaignContext) => Promise<PlannedRequests>): Promise<Planned> {
  return run.attempt(what, async () => {
    const { context } = run;
    return { ...(await call(context)), spec: context.spec };
  });
}

/** The most that one of the planned answers may cost, as the dearest batch has it. */
export function answerBoundOf({ batchUpperBoundUsd, batchUpperBoundTokens, batchSize }: PlannedRequests): Cost {
  return { usd: batchUpperBoundUsd / batchSize, tokens: batchUpperBoundTokens / batchSize };
}

/**
 * When it returns, the ledger holds every answer. The result names the requests as they were answered:
 * after a change of teacher those that had no answer yet belong to the new one.
 */
export async function answer(run: CampaignRun, planned: Planned, who: string, purpose: 'training' | 'evaluation', shareOfStage = 1): Promise<ArtifactRef> {
  const ranges = batchRanges(planned.count, planned.batchSize, purpose === 'training' ? MAX_TRAINING_BATCHES : MAX_EVALUATION_BATCHES);
  const pending: Range[] = [...ranges];
  let current = planned;
  const progressed = (left: number): void => run.progressed(ranges.length - left, Math.round(ranges.length / shareOfStage));
  progressed(ranges.length);
  while (pending.length > 0) {
    if (!isCurrent(run, current) || (await answerPending(run, current, pending, who, progressed))) current = await reassign(run, current);
  }
  return current.requests;
}

const isCurrent = (run: CampaignRun, { spec }: Planned): boolean => run.context.spec.sha256 === spec.sha256;

/** Questions that were asked before: those without an answer go to the teacher of now. */
export function reassign(run: CampaignRun, { requests, batchSize }: Pick<ReassignRequestsInput, 'requests' | 'batchSize'>): Promise<Planned> {
  return plan(run, 'Handing requests over', (context) =>
    rowWork.reassignRequests.executeWithOptions({ summary: `round ${run.state.round}: who answers what` }, [{ ...context, requests, ...(batchSize === undefined ? {} : { batchSize }) }]),
  );
}

/** Takes ranges off `pending` until none is left or the teacher was changed; what was not answered is back in it then. True: it needs new bounds. */
async function answerPending(run: CampaignRun, planned: Planned, pending: Range[], who: string, progressed: (left: number) => void): Promise<boolean> {
  let short = false;
  const wanted = (): boolean => isCurrent(run, planned) && !short;
  const batchBound = { usd: planned.batchUpperBoundUsd, tokens: planned.batchUpperBoundTokens };
  const boundOf = ({ from, to }: Range) => timesCost(batchBound, Math.ceil((to - from) / planned.batchSize));
  let asking = 0;
  const lane = async (): Promise<void> => {
    for (let range = pending.shift(); range !== undefined; range = wanted() ? pending.shift() : undefined) {
      const { from, to } = range;
      const what = `${who}, requests ${from + 1} to ${to}`;
      const summary = `round ${run.state.round}: ${who} answers ${from + 1}–${to} of ${planned.count}`;
      const stage = timesCost(batchBound, [range, ...pending].reduce((sum, each) => sum + Math.ceil((each.to - each.from) / planned.batchSize), 0));
      const purchasesBefore = run.countPurchase(`${planned.requests.sha256} ${from} ${to}`);
      asking += 1;
      const batch = await run.spend({ what, bound: boundOf(range), stage, calls: to - from, wanted }, () =>
        teacher.sampleBatch.executeWithOptions({ summary }, [{ ...run.context, requests: planned.requests, from, to, ...(purchasesBefore === 0 ? {} : { purchasesBefore }) }]),
      );
      asking -= 1;
      if (batch === undefined) {
        pending.push(range);
        return;
      }
      if (batch.left !== undefined) {
        pending.push(range);
        short = true;
      }
      progressed(pending.length + asking);
    }
  };
  // All of them, also where one has failed for good: each bills what it has bought.
  const lanes = await Promise.allSettled(Array.from({ length: run.plan.concurrentBatches }, lane));
  for (const outcome of lanes) if (outcome.status === 'rejected') throw outcome.reason;
  pending.sort((a, b) => a.from - b.from);
  return short;
}
