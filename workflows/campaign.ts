/** The campaign workflow: rounds until there is a reason to stop, then the closing stages. */
import { ActivityFailure } from '@temporalio/common';
import { CancellationScope, allHandlersFinished, condition, continueAsNew, isCancellation, patched, setHandler } from '@temporalio/workflow';
import type { CampaignInput } from '../src/contracts/campaign.ts';
import type { PauseInput, SetSpecInput, SetTeacherInput } from '../src/contracts/messages.ts';
import { cancelUpdate, pauseUpdate, raiseBudgetUpdate, resumeUpdate, roundsQuery, setSpecUpdate, setTeacherUpdate, stateQuery } from '../src/contracts/messages.ts';
import { failureType } from '../src/contracts/names.ts';
import type { CampaignState } from '../src/contracts/state.ts';
import type { Findings } from './closing.ts';
import { close, report } from './closing.ts';
import { askFirstQuestions } from './first-questions.ts';
import { whyNotRaise } from './money.ts';
import type { RoundStart } from './round.ts';
import { runRound } from './round.ts';
import { CampaignRun, preparation, refusal, teacher } from './run.ts';

export async function campaign(input: CampaignInput): Promise<CampaignState> {
  const run = new CampaignRun(input);
  const scope = new CancellationScope();
  const findings: Findings = {};
  setHandlers(run, scope);
  let next: CampaignInput | undefined;
  try {
    next = await scope.run(() => advance(run, findings));
  } catch (error) {
    if (!isCancellation(error)) throw error;
    await CancellationScope.nonCancellable(() => closeCancelled(run, findings));
    // Cancelled through Temporal itself: Temporal should show it so.
    if (run.memory.cancelReason === undefined) throw error;
  }
  if (next !== undefined) await continueAsNew<typeof campaign>(next);
  return run.state;
}

/** One round and what follows from it: the next run's input, or the end. */
async function advance(run: CampaignRun, findings: Findings): Promise<CampaignInput | undefined> {
  const start = await prepare(run);
  findings.data = start.data;
  const outcome = await runRound(run, start);
  if (outcome.kind === 'next') {
    // No await may stand between this and continue-as-new: a pause in between would be lost.
    await condition(() => allHandlersFinished() && run.state.status !== 'paused');
    return { ...run.input, plan: run.plan, carried: { ...outcome.from, state: run.state } };
  }
  run.apply({ type: 'stopped', reason: outcome.reason });
  await close(run, outcome.from, findings);
  await condition(allHandlersFinished);
  run.apply({ type: 'finished', status: 'completed' });
  return undefined;
}

async function prepare(run: CampaignRun): Promise<RoundStart> {
  const { carried } = run.input;
  if (carried !== undefined) return carried;
  const imported = run.plan.importsCompletions === true
    ? await run.attempt('Importing stored completions', () => teacher.importCompletions.executeWithOptions({ summary: 'import stored completions' }, [run.context]))
    : undefined;
  const completions = imported === undefined ? {} : { completions: imported.completions };
  const data = await run.attempt('Preparing the data', () => preparation.prepareCampaign.executeWithOptions({ summary: 'import and split the rows' }, [{ ...run.context, ...completions }]));
  // A fork goes on with questions that were answered.
  if (run.input.fork === undefined && patched('first-questions')) await askFirstQuestions(run, data);
  return { data };
}

/** The report of what exists. It is tried within its time limits and not waited for: a cancelled campaign must end. */
async function closeCancelled(run: CampaignRun, findings: Findings): Promise<void> {
  run.apply({ type: 'stopped', reason: 'cancelled' });
  if (run.state.history !== undefined || run.state.tournament !== undefined) {
    try {
      await report(run, findings);
    } catch (error) {
      if (!(error instanceof ActivityFailure)) throw error;
    }
  }
  await condition(allHandlersFinished);
  run.apply({ type: 'finished', status: 'cancelled' });
}

function setHandlers(run: CampaignRun, scope: CancellationScope): void {
  setHandler(stateQuery, () => run.state);
  setHandler(roundsQuery, () => run.rounds.slice(-2));
  setHandler(
    pauseUpdate,
    ({ reason, by }) => {
      run.apply({ type: 'paused', reason, nowMs: Date.now(), ...(by === undefined ? {} : { by }) });
      return run.state;
    },
    {
      validator: (input) => {
        checkReason(input);
        refuseWhenOver(run);
        // One that would go on by itself can be told not to.
        if (run.state.status === 'paused' && run.state.pauseKind !== 'provider') throw conflict(`expected a running campaign, got one that is paused: ${run.state.pauseReason}`);
      },
    },
  );
  setHandler(
    resumeUpdate,
    () => {
      run.apply({ type: 'resumed' });
      return run.state;
    },
    {
      validator: () => {
        refuseWhenOver(run);
        if (run.state.status !== 'paused') throw conflict(`expected a paused campaign, got one that is ${run.state.status}`);
        if (run.state.pauseKind === 'budget') throw conflict(`expected a raised budget first. ${run.state.pauseReason}`);
      },
    },
  );
  setHandler(
    cancelUpdate,
    ({ reason }) => {
      run.apply({ type: 'cancel-requested', reason });
      scope.cancel();
      return run.state;
    },
    {
      validator: (input) => {
        checkReason(input);
        refuseWhenOver(run);
      },
    },
  );
  setHandler(
    raiseBudgetUpdate,
    (budget) => {
      run.apply({ type: 'budget-raised', budget, nowMs: Date.now() });
      return run.state;
    },
    {
      validator: (budget) => {
        refuseWhenOver(run);
        const problem = whyNotRaise(run.state.budget, budget);
        if (problem !== undefined) throw refusal(failureType('BAD_INPUT'), `budget: ${problem}`);
      },
    },
  );
  setHandler(
    setTeacherUpdate,
    ({ spec, plan, outdates }) => {
      run.apply({ type: 'teacher-set', spec, ...(plan === undefined ? {} : { plan }), ...(outdates === undefined ? {} : { outdates }) });
      return run.state;
    },
    { validator: (input) => checkChange(run, input) },
  );
  setHandler(
    setSpecUpdate,
    ({ spec, plan, outdates }) => {
      run.apply({ type: 'spec-set', spec, plan, nowMs: Date.now(), ...(outdates === undefined ? {} : { outdates }) });
      return run.state;
    },
    {
      validator: (input) => {
        checkChange(run, input);
        if (typeof input.plan?.maxRounds !== 'number') throw refusal(failureType('BAD_INPUT'), 'plan: expected the numbers of the changed spec, got none');
      },
    },
  );
}

const conflict = (message: string) => refusal(failureType('CONFLICT'), message);

function refuseWhenOver(run: CampaignRun): void {
  const { status } = run.state;
  if (status === 'completed' || status === 'cancelled') throw conflict(`expected a campaign that is not over, got one that is ${status}`);
  if (run.memory.cancelReason !== undefined) throw conflict('expected a campaign that goes on, got one that is being cancelled');
}

/** A change of the spec must be one of the spec as it stands: two at once cannot undo each other. */
function checkChange(run: CampaignRun, input: SetTeacherInput | SetSpecInput): void {
  refuseWhenOver(run);
  const { spec, replaces } = (input ?? {}) as Partial<SetTeacherInput>;
  if (spec?.kind !== 'spec' || !/^[0-9a-f]{64}$/.test(String(spec.sha256)) || typeof replaces !== 'string') {
    throw refusal(failureType('BAD_INPUT'), 'expected a stored spec and the hash of the one that it replaces');
  }
  const { sha256 } = run.context.spec;
  if (replaces !== sha256) throw conflict(`expected a change of the spec ${sha256} as it stands now, got one of ${replaces}: it was changed in between`);
}

function checkReason(input: PauseInput): void {
  const { reason, by } = (input ?? {}) as { readonly reason?: unknown; readonly by?: unknown };
  if (by !== undefined && (typeof by !== 'string' || by.trim() === '' || by.length > 100)) throw refusal(failureType('BAD_INPUT'), `by: expected a name of 1 to 100 characters, got ${JSON.stringify(by)?.slice(0, 80)}`);
  if (typeof reason !== 'string' || reason.trim() === '' || reason.length > 500) {
    throw refusal(failureType('BAD_INPUT'), `reason: expected a text of 1 to 500 characters, got ${JSON.stringify(reason)?.slice(0, 80)}`);
  }
}
