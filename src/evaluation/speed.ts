/** How long one answer takes, one at a time: teacher and student asked in turn, so that both meet the same machine. */
import type { MeasuredSpeed, MeasureSpeedInput, SpeedRow } from '../contracts/activities.ts';
import { localStudentOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { InputRow } from '../contracts/records.ts';
import { median } from '../dataset/calibration.ts';
import type { LanguageModel, ModelIdentity } from '../lm/model.ts';
import { tooLongPrompts } from '../lm/too-long.ts';
import { getJson, getRows } from '../store/jsonl.ts';
import { labelScoring } from '../teacher/local.ts';
import { rowTask } from '../teacher/prompts.ts';
import { answerReadable, openStudent, type StudentDeps, type StudentOptions } from './student.ts';

const MEASURED_ROWS = 20;
/** Answered before the clock starts: first runs allocate, and fill the cached prompt. */
const WARM_UP_ROWS = 2;

interface Contender {
  readonly who: SpeedRow['who'];
  readonly identity: Pick<ModelIdentity, 'parameters' | 'sizeBytes'>;
  /** Answers one row and gives the tokens of its prompt. */
  readonly answer: (input: InputRow) => Promise<number>;
  readonly ms: number[];
  readonly promptTokens: number[];
}

/** The teacher's answer to a row as src/teacher/local.ts asks for it, with and without the worked examples' cache. */
async function askTeacher(teacher: LanguageModel, spec: CampaignSpec, row: InputRow, cachePrefix: boolean): Promise<number> {
  const task = rowTask(spec, row.input);
  if (task.kind !== 'label') {
    const [text] = await teacher.generate({ prompts: [{ messages: task.messages }], maxNewTokens: task.parameters.maxTokens, temperature: 0 });
    return text?.promptTokens ?? 0;
  }
  const [scores] = await teacher.scoreLabels(labelScoring([task], cachePrefix));
  return scores?.promptTokens ?? 0;
}

function teacherContenders(teacher: LanguageModel, spec: CampaignSpec, example: InputRow): readonly Contender[] {
  const contender = (who: Contender['who'], cachePrefix: boolean): Contender => ({
    who,
    identity: teacher.identity,
    answer: (row) => askTeacher(teacher, spec, row, cachePrefix),
    ms: [],
    promptTokens: [],
  });
  const task = rowTask(spec, example.input);
  // Only worked examples before a completion are kept between answers.
  const hasPrefix = task.kind === 'label' && task.completionPrompt !== undefined;
  return [contender('teacher, prompt not cached', false), ...(hasPrefix ? [contender('teacher, prompt cached', true)] : [])];
}

function speedRow({ who, identity, ms, promptTokens }: Contender): SpeedRow {
  const sorted = ms.toSorted((a, b) => a - b);
  return {
    who,
    msMedian: median(ms),
    msP95: sorted[Math.ceil(sorted.length * 0.95) - 1] ?? NaN,
    promptTokens: Math.round(median(promptTokens)),
    parameters: identity.parameters,
    sizeBytes: identity.sizeBytes,
  };
}

/** How long each contender takes for the row, and the tokens of its prompt; nothing where the row is longer than one of them reads. */
async function timeRow(contenders: readonly Contender[], row: InputRow): Promise<readonly { readonly ms: number; readonly promptTokens: number }[] | undefined> {
  const times: { readonly ms: number; readonly promptTokens: number }[] = [];
  try {
    for (const contender of contenders) {
      const startedMs = performance.now();
      const promptTokens = await contender.answer(row);
      times.push({ ms: performance.now() - startedMs, promptTokens });
    }
    return times;
  } catch (error) {
    if (tooLongPrompts(error).length === 0) throw error;
    return undefined;
  }
}

/** A teacher behind an endpoint is not measured: its time is the network's as well. */
export async function measureSpeed(deps: StudentDeps, input: MeasureSpeedInput, options: StudentOptions = {}): Promise<MeasuredSpeed> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const asked = (await getRows<InputRow>(deps.store, input.rows)).slice(0, MEASURED_ROWS);
  const [first] = asked;
  if (first === undefined) throw new StillhouseError('BAD_INPUT', `rows ${input.rows.sha256.slice(0, 12)}: expected one row or more, got none`);
  await using opened = new AsyncDisposableStack();
  const student = opened.use(await openStudent(deps, localStudentOf(spec), input.checkpoint, options.signal));
  const contenders: Contender[] = [];
  if (spec.teacher.provider === 'local') {
    const teacher = opened.use(await deps.host.open({ model: spec.teacher.model, ...(options.signal === undefined ? {} : { signal: options.signal }) }));
    contenders.push(...teacherContenders(teacher, spec, first));
  }
  const { identity } = student.model;
  contenders.push({
    who: 'student',
    identity: { parameters: identity.parameters, sizeBytes: student.sizeBytes },
    answer: async (row) => (await answerReadable(student.model, spec, [row]))[0]?.promptTokens ?? 0,
    ms: [],
    promptTokens: [],
  });
  for (const row of asked.slice(0, WARM_UP_ROWS)) await timeRow(contenders, row);
  for (const [index, row] of asked.entries()) {
    const times = await timeRow(contenders, row);
    times?.forEach(({ ms, promptTokens }, at) => {
      contenders[at]?.ms.push(ms);
      contenders[at]?.promptTokens.push(promptTokens);
    });
    options.onProgress?.({ done: index + 1, total: asked.length });
  }
  return { rows: contenders.filter(({ ms }) => ms.length > 0).map(speedRow) };
}
