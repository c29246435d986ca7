/** One way to train in a tournament: carries out what its campaign orders, one epoch or one set of answers at a time, and reports. */
import { ActivityFailure, ApplicationFailure, defineSearchAttributeKey } from '@temporalio/common';
import { condition, getExternalWorkflowHandle, isCancellation, setCurrentDetails, setHandler, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { ContestantInput, ContestantOrder, ContestantProgress, ContestantReport } from '../src/contracts/contestant.ts';
import type { ErrorCode } from '../src/contracts/errors.ts';
import { contestantOrderSignal, contestantQuery, contestantReportSignal } from '../src/contracts/messages.ts';
import { failureType } from '../src/contracts/names.ts';
import { codeOf, factsOf, reasonOf, shorten } from './failure.ts';
import { device, training } from './run.ts';

const STAGE = defineSearchAttributeKey('StillhouseStage', 'KEYWORD');
/** What a contestant's own settings cause: its model does not fit (at last its process is killed each time), its loss diverges, its rows are none that it can learn. */
const OWN: ReadonlySet<ErrorCode> = new Set(['BAD_INPUT', 'TOO_LARGE', 'DIVERGED', 'PROCESS_DIED']);
/** Of several contestants all reasons travel together. */
const LONGEST_REASON = 600;

type Work = Exclude<ContestantOrder, { readonly kind: 'leave' }>;

export async function contestant(input: ContestantInput): Promise<ContestantProgress> {
  const { campaign, contestant: name, epochs } = input;
  const orders: ContestantOrder[] = [];
  let progress: ContestantProgress = { campaign, contestant: name, status: 'waiting', epochs, trained: input.trained, ...(input.from === undefined ? {} : { checkpoint: input.from }) };
  const show = (change: Partial<ContestantProgress>): void => {
    progress = { ...progress, ...change };
    setCurrentDetails(describe(progress));
    if (change.status !== undefined) upsertSearchAttributes([{ key: STAGE, value: STAGES[change.status] }]);
  };
  setHandler(contestantQuery, () => progress);
  setHandler(contestantOrderSignal, (order) => {
    orders.push(order);
  });
  const { parent } = workflowInfo();
  if (parent === undefined) throw ApplicationFailure.create({ type: failureType('BAD_INPUT'), message: 'expected a campaign as the parent, got none', nonRetryable: true });
  const owner = getExternalWorkflowHandle(parent.workflowId);
  setCurrentDetails(describe(progress));
  for (;;) {
    await condition(() => orders.length > 0);
    const order = orders.shift() as ContestantOrder;
    if (order.kind === 'leave') {
      show({ status: 'over', reason: order.reason });
      return progress;
    }
    show({ status: order.kind === 'train' ? 'training' : 'answering' });
    const report = await carryOut(input, progress, order);
    const { trained, failure } = report;
    if (failure?.stale === true) {
      const { checkpoint: _stale, ...anew } = progress;
      progress = { ...anew, trained: 0 };
    }
    // An epoch that failed in its middle is gone on from at the newest checkpoint that it has left.
    const checkpoint = trained?.checkpoint ?? failure?.facts?.checkpoint;
    show({ status: 'waiting', ...(trained === undefined ? {} : { trained: progress.trained + 1 }), ...(checkpoint === undefined ? {} : { checkpoint }) });
    await owner.signal(contestantReportSignal, report);
  }
}

async function carryOut({ campaign, spec, contestant: name, round, dataset, rows }: ContestantInput, { trained, epochs, checkpoint }: ContestantProgress, order: Work): Promise<ContestantReport> {
  const context = { campaign, spec: order.spec ?? spec };
  const report = { contestant: name, number: order.number };
  try {
    if (order.kind === 'train') {
      const hours = order.hoursLeft === undefined ? {} : { hoursLeft: order.hoursLeft };
      const from = checkpoint === undefined ? {} : { from: checkpoint };
      return { ...report, trained: await training.trainEpoch.executeWithOptions({ summary: `${name}: epoch ${trained + 1} of ${epochs}` }, [{ ...context, round, epoch: trained, dataset, ...from, ...hours }]) };
    }
    const tuned = checkpoint === undefined ? {} : { checkpoint };
    return { ...report, answers: await device.runStudent.executeWithOptions({ summary: `${name}: its student of epoch ${trained} answers the development rows` }, [{ ...context, rows, ...tuned }]) };
  } catch (error) {
    if (!(error instanceof ActivityFailure) || isCancellation(error)) throw error;
    const [code, facts] = [codeOf(error), factsOf(error)];
    const stale = code === 'STALE' && checkpoint !== undefined;
    // Too little time is left for the campaign, not for this contestant alone.
    const own = code !== undefined && OWN.has(code) && facts?.hoursNeeded === undefined;
    return { ...report, failure: { reason: shorten(reasonOf(error), LONGEST_REASON), own, ...(stale ? { stale } : {}), ...(code === undefined ? {} : { code }), ...(facts === undefined ? {} : { facts }) } };
  }
}

/** As a campaign's own stages are called. */
const STAGES: { readonly [Status in ContestantProgress['status']]: string } = { waiting: 'waiting', training: 'training', answering: 'evaluating', over: 'finished' };

const describe = ({ campaign, contestant: name, status, trained, epochs, reason }: ContestantProgress): string =>
  [`**${status}** · ${name} in the tournament of ${campaign} · ${trained} of ${epochs} epochs trained`, ...(reason === undefined ? [] : ['', `- ${reason}`])].join('\n');
