/** One way to train in a tournament: carries out what its campaign orders, one epoch or one set of answers at a time, and reports. */
import { ActivityFailure, ApplicationFailure, defineSearchAttributeKey, rootCause } from '@temporalio/common';
import { condition, getExternalWorkflowHandle, isCancellation, setCurrentDetails, setHandler, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { ContestantInput, ContestantOrder, ContestantProgress, ContestantReport } from '../src/contracts/contestant.ts';
import { contestantOrderSignal, contestantQuery, contestantReportSignal } from '../src/contracts/messages.ts';
import { failureType } from '../src/contracts/names.ts';
import { device, shorten, training } from './run.ts';

const STAGE = defineSearchAttributeKey('StillhouseStage', 'KEYWORD');
/** What a contestant's own settings cause: its model does not fit (at last its process is killed each time), its loss diverges, its rows are none that it can learn. */
const OWN: ReadonlySet<string> = new Set((['BAD_INPUT', 'TOO_LARGE', 'DIVERGED', 'PROCESS_DIED'] as const).map(failureType));

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
    const { trained } = report;
    show({ status: 'waiting', ...(trained === undefined ? {} : { trained: progress.trained + 1, checkpoint: trained.checkpoint }) });
    await owner.signal(contestantReportSignal, report);
  }
}

async function carryOut({ campaign, spec, contestant: name, round, dataset, rows }: ContestantInput, { trained, epochs, checkpoint }: ContestantProgress, order: Work): Promise<ContestantReport> {
  const context = { campaign, spec };
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
    const { cause } = error;
    const own = cause instanceof ApplicationFailure && typeof cause.type === 'string' && OWN.has(cause.type);
    return { ...report, failure: { reason: shorten(rootCause(error) ?? error.message), own } };
  }
}

/** As a campaign's own stages are called. */
const STAGES: { readonly [Status in ContestantProgress['status']]: string } = { waiting: 'waiting', training: 'training', answering: 'evaluating', over: 'finished' };

const describe = ({ campaign, contestant: name, status, trained, epochs, reason }: ContestantProgress): string =>
  [`**${status}** · ${name} in the tournament of ${campaign} · ${trained} of ${epochs} epochs trained`, ...(reason === undefined ? [] : ['', `- ${reason}`])].join('\n');
