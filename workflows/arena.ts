/** The children of a tournament: each contestant is a workflow of its own that is given one order at a time. */
import { CancellationScope, condition, setHandler, startChild } from '@temporalio/workflow';
import type { ChildWorkflowHandle } from '@temporalio/workflow';
import { defineSearchAttributeKey, rootCause } from '@temporalio/common';
import type { ContestantInput, ContestantOrder, ContestantReport } from '../src/contracts/contestant.ts';
import { contestantOrderSignal, contestantReportSignal } from '../src/contracts/messages.ts';
import { CONTESTANT_WORKFLOW, contestantWorkflowId } from '../src/contracts/names.ts';
import type { contestant } from './contestant.ts';

const CAMPAIGN = defineSearchAttributeKey('StillhouseCampaign', 'KEYWORD');
const STAGE = defineSearchAttributeKey('StillhouseStage', 'KEYWORD');

type Command = ContestantOrder extends infer Order ? (Order extends ContestantOrder ? Omit<Order, 'number'> : never) : never;

interface Child {
  readonly handle: ChildWorkflowHandle<typeof contestant>;
  /** Settles, never rejects, when the workflow is closed. */
  readonly closed: Promise<void>;
  /** Why it takes no more orders: it was dismissed, or an operator has ended its workflow. */
  gone?: string;
}

export class Arena {
  private readonly children = new Map<string, Child>();
  private readonly reports = new Map<number, ContestantReport>();
  private orders = 0;

  constructor() {
    setHandler(contestantReportSignal, (report) => {
      this.reports.set(report.number, report);
    });
  }

  /** Starts the contestant's workflow, again where an operator has ended the one before. */
  async admit(input: ContestantInput): Promise<void> {
    const before = this.children.get(input.contestant);
    if (before !== undefined && before.gone === undefined) return;
    const handle = await startChild<typeof contestant>(CONTESTANT_WORKFLOW, {
      workflowId: contestantWorkflowId(input.campaign, input.contestant),
      args: [input],
      staticSummary: `${input.contestant} in the tournament of ${input.campaign}`,
      typedSearchAttributes: [{ key: CAMPAIGN, value: input.campaign }, { key: STAGE, value: 'waiting' }],
      // Whatever ends the campaign, an operator's terminate too, stops a training gently: its last steps become a checkpoint.
      parentClosePolicy: 'REQUEST_CANCEL',
      cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    });
    const closed = handle.result().then(() => undefined, (error: unknown) => {
      child.gone ??= `its workflow was ended: ${rootCause(error) ?? String(error)}`;
    });
    const child: Child = { handle, closed };
    this.children.set(input.contestant, child);
  }

  /** What came of the order; a failure of the contestant's own where its workflow is gone. */
  async order(name: string, command: Exclude<Command, { readonly kind: 'leave' }>): Promise<ContestantReport> {
    const child = this.children.get(name) as Child;
    const number = (this.orders += 1);
    const gone = (): ContestantReport | undefined => (child.gone === undefined ? undefined : { contestant: name, number, failure: { reason: child.gone, own: true } });
    if (child.gone === undefined) await this.send(child, { ...command, number });
    await condition(() => this.reports.has(number) || child.gone !== undefined);
    const report = this.reports.get(number) ?? gone();
    this.reports.delete(number);
    return report as ContestantReport;
  }

  /** Tells the contestant that it is out, and waits for its workflow's end. */
  async dismiss(name: string, reason: string): Promise<void> {
    const child = this.children.get(name);
    if (child === undefined || child.gone !== undefined) return;
    child.gone = reason;
    await this.send(child, { kind: 'leave', reason, number: (this.orders += 1) });
    await child.closed;
  }

  /** After a cancellation, which reaches the children by itself: the device is free when this resolves. */
  async emptied(): Promise<void> {
    await CancellationScope.nonCancellable(() => Promise.all([...this.children.values()].map(({ closed }) => closed)));
  }

  /** One that was closed at this moment gets no order: its end is known soon. */
  private async send(child: Child, order: ContestantOrder): Promise<void> {
    try {
      await child.handle.signal(contestantOrderSignal, order);
    } catch (error) {
      if (CancellationScope.current().consideredCancelled) throw error;
      await child.closed;
    }
  }
}
