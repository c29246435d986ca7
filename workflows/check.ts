/** The check of a spec without a campaign: its rows are prepared and the first question of each kind is asked, nothing else. */
import { proxyActivities } from '@temporalio/workflow';
import type { CheckedSpec, PrepareCampaignInput, TeacherActivities } from '../src/contracts/activities.ts';
import type { CheckInput } from '../src/contracts/campaign.ts';
import { askFirst, problemOf } from './first-questions.ts';
import type { Asker } from './first-questions.ts';
import { preparation } from './run.ts';
import { TEACHER_CALLS } from './timeouts.ts';

/** Somebody waits for the answer: a provider that is away is said to be so. */
const teacher = proxyActivities<Pick<TeacherActivities, 'importCompletions'>>({ ...TEACHER_CALLS, scheduleToCloseTimeout: '10 minutes' });
const ROWS = 3;

export async function check({ campaign, spec, importsCompletions }: CheckInput): Promise<CheckedSpec> {
  const context = { campaign, spec };
  const imported = importsCompletions ? await teacher.importCompletions.executeWithOptions({ summary: 'import stored completions' }, [context]) : undefined;
  const input: PrepareCampaignInput = { ...context, ...(imported === undefined ? {} : { completions: imported.completions }) };
  const data = await preparation.prepareCampaign.executeWithOptions({ summary: 'import and split the rows' }, [input]);
  let usd = 0;
  const asker: Asker = {
    context: () => context,
    step: (_what, call) => call(),
    ask: async (_planned, call) => {
      const batch = await call(context);
      usd += batch.spending.usd;
      return batch;
    },
  };
  for (let skip = 0; ; skip += 1) {
    const found = await askFirst(asker, data, skip);
    const problem = found === undefined ? undefined : problemOf(found);
    if (found === undefined || (problem !== undefined && skip + 1 < ROWS)) continue;
    const { poolRows, developmentRows, testRows, excluded } = data;
    return { ...found, usd, poolRows, developmentRows, testRows, ...(excluded === undefined ? {} : { excluded }), ...(problem === undefined ? {} : { problem }) };
  }
}
