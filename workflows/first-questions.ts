/** Before a campaign asks all of its questions, it asks one of each kind: what cannot be used is known before the budget is touched. */
import type { CampaignContext, FirstAnswers, PlannedRequests, PreparedData, SampledBatch } from '../src/contracts/activities.ts';
import type { ArtifactRef } from '../src/contracts/artifacts.ts';
import type { CampaignRun } from './run.ts';
import { rowWork, teacher } from './run.ts';

/** One row may be refused for its own sake: so many are tried. */
const ROWS = 3;
/** A plan of what written pairs are to differ in is asked for first, then a pair. */
const STAGES = 2;

/** How the steps are run: within a campaign's gates and money, or without. */
export interface Asker {
  readonly context: () => CampaignContext;
  step<T>(what: string, call: () => Promise<T>): Promise<T>;
  /** Pays for the call; undefined where its questions are no longer wanted. */
  ask(planned: PlannedRequests, call: (context: CampaignContext) => Promise<SampledBatch>): Promise<SampledBatch | undefined>;
}

const sum = (a: FirstAnswers, b: FirstAnswers): FirstAnswers => ({ answers: [...a.answers, ...b.answers], learned: [...new Set([...a.learned, ...b.learned])] });
const NOTHING: FirstAnswers = { answers: [], learned: [] };

/** The answers about one row; undefined where the teacher was changed meanwhile. */
export async function askFirst(asker: Asker, data: PreparedData, skip: number): Promise<FirstAnswers | undefined> {
  let found = NOTHING;
  const asked = new Set<string>();
  const stage = async (judged?: ArtifactRef): Promise<ArtifactRef | 'nobody' | undefined> => {
    const context = asker.context();
    const input = { ...context, data, skip, ...(judged === undefined ? {} : { judged }) };
    const planned = await asker.step('Planning the first questions', () => rowWork.planFirstQuestions.executeWithOptions({ summary: 'plan the first questions' }, [input]));
    if (planned.count === 0 || asked.has(planned.requests.sha256)) return 'nobody';
    asked.add(planned.requests.sha256);
    const batch = await asker.ask(planned, (now) =>
      teacher.sampleBatch.executeWithOptions({ summary: `ask the first ${planned.count} questions` }, [{ ...now, requests: planned.requests, from: 0, to: planned.count, direct: true }]),
    );
    if (batch === undefined || asker.context().spec.sha256 !== context.spec.sha256) return undefined;
    if (batch.left !== undefined) return await stage(judged);
    found = sum(found, await asker.step('Reading the first answers', () => rowWork.readFirstAnswers.executeWithOptions({ summary: 'read the first answers' }, [{ ...context, requests: planned.requests }])));
    return planned.requests;
  };
  let last: ArtifactRef | undefined;
  for (let number = 0; number < STAGES; number += 1) {
    const requests = await stage();
    if (requests === undefined) return undefined;
    if (requests === 'nobody' || problemOf(found) !== undefined) break;
    last = requests;
  }
  if (last !== undefined && problemOf(found) === undefined && (await stage(last)) === undefined) return undefined;
  return found;
}

/** What is wrong with the first answer that cannot be used. */
export function problemOf({ answers }: FirstAnswers): string | undefined {
  const wrong = answers.find(({ problem }) => problem !== undefined);
  return wrong === undefined ? undefined : `${wrong.who} (${wrong.model}): expected an answer that can be used, got ${wrong.answer}: ${wrong.problem}`;
}

/** Pauses the campaign where three rows in a row got no answer that can be used; resumed, it tries three others. */
export async function askFirstQuestions(run: CampaignRun, data: PreparedData): Promise<void> {
  const asker: Asker = {
    context: () => run.context,
    step: (what, call) => run.attempt(what, call),
    ask: (planned, call) => {
      const { spec } = run.context;
      const bound = { usd: planned.batchUpperBoundUsd, tokens: planned.batchUpperBoundTokens };
      return run.spend({ what: 'The first questions', bound, stage: bound, calls: planned.count, wanted: () => run.context.spec.sha256 === spec.sha256 }, () => call(run.context));
    },
  };
  for (let skip = 0; ; ) {
    const found = await askFirst(asker, data, skip);
    if (found === undefined) continue;
    run.apply({ type: 'changed', fields: { firstAnswers: found } });
    const problem = problemOf(found);
    if (problem === undefined) return;
    skip += 1;
    if (skip % ROWS === 0) run.apply({ type: 'failed', reason: `The first questions, ${ROWS} rows: ${problem}`, code: 'BAD_INPUT', nowMs: Date.now() });
  }
}
