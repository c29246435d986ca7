/** Scores the teacher, the untuned student and the student on the same rows. */
import type { EvaluateInput, Evaluated } from '../contracts/activities.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, InputRow, Prediction, TeacherRequest } from '../contracts/records.ts';
import type { AnswerReader } from '../dataset/answers.ts';
import { labelOf } from '../dataset/labels.ts';
import { getJson, getRows, putJson } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { comparePairs, comparisonId } from './comparison.ts';
import type { ComparedPair } from './comparison.ts';
import { CONTESTANTS } from './evaluation.ts';
import type { Comparison, Contestant, ContestantResult, Evaluation, EvaluationRow } from './evaluation.ts';
import { scoreShare } from './judge-score.ts';
import { judgementId, readJudgement, teacherTexts } from './judge.ts';
import { classScores, confusionMatrix, macroF1, meanInterval, retentionInterval } from './metrics.ts';
import type { LabelPair } from './metrics.ts';
import { teacherOutputs } from './teacher-answers.ts';

export interface EvaluateDeps {
  readonly store: ArtifactStore;
  readonly answers: AnswerReader;
}

interface Scored {
  readonly rows: readonly EvaluationRow[];
  readonly unscored: Evaluation['unscored'];
  readonly comparisons?: readonly Comparison[];
}

/**
 * Every contestant must have answered every row; NOT_FOUND otherwise. The label scorer gives 1 for
 * the gold label and 0 for anything else, the judge 0 for its lowest score and 1 for its highest. The
 * same inputs give the same bytes.
 */
export async function evaluate(deps: EvaluateDeps, input: EvaluateInput): Promise<Evaluated> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const rows = await getRows<InputRow>(deps.store, input.rows);
  const calibration = input.calibration === undefined ? undefined : await getJson<Calibration>(deps.store, input.calibration);
  const labels = spec.task.output.kind === 'label' ? spec.task.output.labels : undefined;
  const byLabel = spec.evaluation.scorer.kind === 'label' && labels !== undefined;
  const scored = byLabel ? await scoreLabels(deps, spec, labels, input, rows, calibration) : await scoreJudged(deps, spec, input, rows);
  const evaluation = summarise(spec, scored, byLabel ? labels : undefined, calibration);
  const { teacher, untuned, student } = evaluation.contestants;
  return {
    evaluation: await putJson(deps.store, 'evaluation', evaluation),
    rows: evaluation.rows.length,
    teacherScore: (teacher as ContestantResult).score.mean,
    studentScore: (student as ContestantResult).score.mean,
    ...(untuned === undefined ? {} : { untunedScore: untuned.score.mean }),
    studentInterval: (student as ContestantResult).score,
    retention: evaluation.retention,
  };
}

async function scoreLabels(deps: EvaluateDeps, spec: CampaignSpec, labels: readonly string[], input: EvaluateInput, rows: readonly InputRow[], calibration?: Calibration): Promise<Scored> {
  const requests = await getRows<TeacherRequest>(deps.store, input.teacherRequests);
  const teacher = await teacherOutputs(deps, spec, requests, calibration);
  const students = await predictionTexts(deps, input);
  const scored = rows.map((row): EvaluationRow => {
    const given: Partial<Record<Contestant, string | null>> = { teacher: answerTo(teacher, row, 'teacher').label };
    for (const [who, texts] of students) given[who] = labelOf(answerTo(texts, row, who), labels) ?? null;
    const scores: Partial<Record<Contestant, number>> = {};
    for (const who of CONTESTANTS) if (given[who] !== undefined) scores[who] = given[who] === row.gold ? 1 : 0;
    return { id: row.id, ...(row.gold === undefined ? {} : { gold: row.gold }), answers: given, scores };
  });
  return { rows: scored, unscored: [] };
}

async function scoreJudged(deps: EvaluateDeps, spec: CampaignSpec, input: EvaluateInput, rows: readonly InputRow[]): Promise<Scored> {
  if (input.judgements === undefined) throw new StillhouseError('INTERNAL', 'expected judgements for a spec whose scorer is judge, got none');
  const requests = await getRows<TeacherRequest>(deps.store, input.judgements);
  const judgements = new Map<string, string>();
  (await deps.answers(spec, requests)).forEach((answer, index) => judgements.set((requests[index] as TeacherRequest).id, answer.text));
  const teacher = await teacherTexts(deps, spec, await getRows<TeacherRequest>(deps.store, input.teacherRequests));
  const contestants: readonly (readonly [Contestant, ReadonlyMap<string, string>])[] = [['teacher', teacher], ...(await predictionTexts(deps, input))];
  const scored: EvaluationRow[] = [];
  const unscored: { readonly id: string; readonly problem: string }[] = [];
  for (const row of rows) {
    const scores: Partial<Record<Contestant, number>> = {};
    let problem: string | undefined;
    for (const [who, texts] of contestants) {
      const id = judgementId(row, answerTo(texts, row, who));
      const text = judgements.get(id);
      if (text === undefined) throw new StillhouseError('NOT_FOUND', `expected a judgement of the ${who}'s answer to row ${row.id}, got none (${id})`);
      const judgement = readJudgement(text);
      if ('problem' in judgement) problem = `${who}: ${judgement.problem}`;
      else scores[who] = scoreShare(judgement.score);
    }
    if (problem === undefined) scored.push({ id: row.id, ...(row.gold === undefined ? {} : { gold: row.gold }), scores });
    else unscored.push({ id: row.id, problem });
  }
  const { scorer } = spec.evaluation;
  const comparisons = scorer.kind === 'judge' && scorer.compare ? compareAll(spec, rows, contestants, judgements) : undefined;
  if (scored.length === 0) throw new StillhouseError('BAD_INPUT', `expected readable judgements, got none for ${rows.length} rows; the first: ${unscored[0]?.problem ?? 'no rows'}`);
  return { rows: scored, unscored, ...(comparisons === undefined ? {} : { comparisons }) };
}

/** The student against each of the others. */
function compareAll(spec: CampaignSpec, rows: readonly InputRow[], contestants: readonly (readonly [Contestant, ReadonlyMap<string, string>])[], judgements: ReadonlyMap<string, string>): readonly Comparison[] {
  const student = contestants.find(([who]) => who === 'student')?.[1] ?? new Map<string, string>();
  const bootstrap = { resamples: spec.evaluation.bootstrapResamples, seed: spec.seed };
  const judged = (row: InputRow, first: string, second: string): string => {
    const id = comparisonId(row, first, second);
    const text = judgements.get(id);
    if (text === undefined) throw new StillhouseError('NOT_FOUND', `expected a comparison of two answers to row ${row.id}, got none (${id})`);
    return text;
  };
  return contestants.filter(([who]) => who !== 'student').map(([against, texts]) => {
    const pairs = rows.map((row): ComparedPair => {
      const [one, other] = [answerTo(student, row, 'student'), answerTo(texts, row, against)];
      return one === other ? { one, other } : { one, other, forward: judged(row, one, other), backward: judged(row, other, one) };
    });
    return comparePairs(pairs, { contestant: 'student', against }, bootstrap);
  });
}

/** Texts of the students by row id. */
async function predictionTexts(deps: EvaluateDeps, input: EvaluateInput): Promise<readonly (readonly [Contestant, ReadonlyMap<string, string>])[]> {
  const read = async (ref: EvaluateInput['student']): Promise<ReadonlyMap<string, string>> =>
    new Map((await getRows<Prediction>(deps.store, ref)).map((prediction) => [prediction.id, prediction.output]));
  const student = ['student', await read(input.student)] as const;
  return input.untuned === undefined ? [student] : [['untuned', await read(input.untuned)], student];
}

function answerTo<T>(answers: ReadonlyMap<string, T>, row: InputRow, who: Contestant): T {
  const answer = answers.get(row.id);
  if (answer === undefined) throw new StillhouseError('NOT_FOUND', `expected an answer of the ${who} to row ${row.id} (${row.origin}), got none among ${answers.size}`);
  return answer;
}

function summarise(spec: CampaignSpec, scored: Scored, labels: readonly string[] | undefined, calibration: Calibration | undefined): Evaluation {
  const bootstrap = { resamples: spec.evaluation.bootstrapResamples, seed: spec.seed };
  const scoresOf = (who: Contestant): readonly number[] => scored.rows.flatMap((row) => row.scores[who] ?? []);
  const contestants: Partial<Record<Contestant, ContestantResult>> = {};
  for (const who of CONTESTANTS) {
    const scores = scoresOf(who);
    if (scores.length === 0) continue;
    contestants[who] = { score: meanInterval(scores, bootstrap), ...(labels === undefined ? {} : labelResult(labels, who, scored.rows)) };
  }
  return {
    scorer: labels === undefined ? 'judge' : 'label',
    ...(labels === undefined ? {} : { labels }),
    ...(calibration === undefined ? {} : { calibration }),
    contestants,
    retention: retentionInterval(scoresOf('teacher'), scoresOf('student'), bootstrap),
    bootstrap,
    rows: scored.rows,
    unscored: scored.unscored,
    ...(scored.comparisons === undefined ? {} : { comparisons: scored.comparisons }),
  };
}

function labelResult(labels: readonly string[], who: Contestant, rows: readonly EvaluationRow[]): Omit<ContestantResult, 'score'> {
  const pairs = rows.map((row): LabelPair => ({ gold: row.gold as string, answer: row.answers?.[who] ?? null }));
  const confusion = confusionMatrix(labels, pairs);
  const classes = classScores(labels, confusion);
  return { macroF1: macroF1(classes, confusion), classes, confusion };
}
