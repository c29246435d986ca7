/**
 * The first question of each kind, before a campaign asks all others: whether teacher, judge and hosted student answer in a
 * way that can be used, what an answer costs, and what their endpoints turn out not to take. Each is a question that the
 * campaign asks anyway, so that the ledger answers it then.
 */
import type { FirstAnswer, FirstAnswers, PlanFirstQuestionsInput, PlannedRequests, ReadFirstAnswersInput } from '../contracts/activities.ts';
import type { ArtifactRef } from '../contracts/artifacts.ts';
import type { CampaignSpec, EndpointSpec } from '../contracts/campaign-spec.ts';
import type { InputRow, TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';
import type { AnswerFinder, AnswerReader, ReadAnswer } from '../dataset/answers.ts';
import { candidatesOf } from '../dataset/candidates.ts';
import { excerpt } from '../dataset/pairs.ts';
import { getJson, getRows, putRows } from '../store/jsonl.ts';
import type { ArtifactStore } from '../store/store.ts';
import { baseUrlOf } from '../teacher/openai-client.ts';
import { batchUpperBound, boundOf, isStored, planRequests } from '../teacher/plan.ts';
import { endpointOf } from '../teacher/sample.ts';
import type { Teacher, TeacherDirectory } from '../teacher/teacher.ts';
import type { TraitBook } from '../teacher/trait-book.ts';
import { planStudentRequests } from './hosted-student.ts';
import { judgeRequest, readJudgement } from './judge.ts';

export interface FirstQuestionsDeps {
  readonly store: ArtifactStore;
  readonly answers: AnswerReader;
  readonly directory: TeacherDirectory;
  readonly find: AnswerFinder;
}

const SHOWN_CHARACTERS = 120;
/** Of a problem's words and of what was learned: all of it travels in the campaign's state. */
const PROBLEM_CHARACTERS = 400;
const MAX_LEARNED = 12;

/** The questions; none where nobody at an endpoint is asked. The same input and answers give the same bytes. */
export async function planFirstQuestions(deps: FirstQuestionsDeps, input: PlanFirstQuestionsInput): Promise<PlannedRequests> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const requests = input.judged === undefined ? await toTeacherAndStudent(deps, spec, input) : await toJudge(deps, spec, input.judged);
  await using opened = new AsyncDisposableStack();
  const teachers = new Map<EndpointSpec, Teacher>();
  const bounds = new Map<TeacherRequest, Cost>();
  for (const request of requests) {
    const endpoint = endpointOf(spec, request);
    const teacher = teachers.get(endpoint) ?? opened.use(await deps.directory.open(endpoint));
    teachers.set(endpoint, teacher);
    bounds.set(request, boundOf(teacher, request));
  }
  const batchSize = Math.max(1, requests.length);
  return { requests: await putRows(deps.store, 'requests', requests), count: requests.length, batchSize, ...batchUpperBound(requests, batchSize, (request) => bounds.get(request) as Cost) };
}

async function toTeacherAndStudent(deps: FirstQuestionsDeps, spec: CampaignSpec, { skip, ...input }: PlanFirstQuestionsInput): Promise<readonly TeacherRequest[]> {
  const planned = async (ref: ArtifactRef): Promise<readonly TeacherRequest[]> => (await getRows<TeacherRequest>(deps.store, ref)).filter((request) => !isStored(request));
  const picked: (TeacherRequest | undefined)[] = [];
  if (spec.teacher.provider !== 'local') {
    const { requests, preliminary } = await planRequests(deps, { ...input, purpose: 'train', round: 1 });
    const training = await planned(requests);
    const aboutRows = training.filter(({ row }) => row !== undefined);
    picked.push(aboutRows[skip], training.filter(({ row }) => row === undefined)[preliminary === true ? 0 : skip]);
    // What the judge is asked about, or where no question of a row is among the training ones.
    if (spec.evaluation.scorer.kind === 'judge' || aboutRows.length === 0) {
      picked.push((await planned((await planRequests(deps, { ...input, purpose: 'development', round: 0 })).requests))[skip]);
    }
  }
  if (spec.student.provider === 'openai') picked.push((await planned((await planStudentRequests(deps, { ...input, rows: input.data.development })).requests))[skip]);
  return picked.filter((request) => request !== undefined);
}

/** As the evaluation will ask about the same answer. */
async function toJudge(deps: FirstQuestionsDeps, spec: CampaignSpec, asked: ArtifactRef): Promise<readonly TeacherRequest[]> {
  const { scorer } = spec.evaluation;
  if (scorer.kind !== 'judge' || scorer.judge.provider === 'local') return [];
  const requests = (await getRows<TeacherRequest>(deps.store, asked)).filter(({ purpose }) => purpose === 'development' || purpose === 'train');
  const request = requests.find(({ purpose }) => purpose === 'development') ?? requests.find(({ row }) => row !== undefined);
  if (request?.row === undefined) return [];
  const [answer] = await deps.answers(spec, [request]);
  return [judgeRequest(spec, scorer.judge, scorer.rubric, request.row as InputRow, (answer as ReadAnswer).text)];
}

export async function readFirstAnswers(deps: Pick<FirstQuestionsDeps, 'store' | 'answers'> & { readonly traits?: Pick<TraitBook, 'list'> }, input: ReadFirstAnswersInput): Promise<FirstAnswers> {
  const spec = await getJson<CampaignSpec>(deps.store, input.spec);
  const requests = await getRows<TeacherRequest>(deps.store, input.requests);
  const answers = await deps.answers(spec, requests);
  const asked = new Set(requests.map((request) => endpointOf(spec, request)).map((endpoint) => `${baseUrlOf(endpoint)} ${endpoint.model}`));
  const learned = (deps.traits?.list() ?? []).filter(({ provider, model }) => asked.has(`${provider} ${model}`));
  return {
    answers: requests.map((request, index) => firstAnswer(spec, request, answers[index] as ReadAnswer)),
    learned: learned.flatMap(({ model, changes, reasons }) => Object.entries(changes).map(([feature, value]) => `${model}: ${feature} is ${String(value)} (${(reasons[feature]?.words ?? '').slice(0, 80)})`)).slice(0, MAX_LEARNED),
  };
}

function firstAnswer(spec: CampaignSpec, request: TeacherRequest, answer: ReadAnswer): FirstAnswer {
  const { purpose, task } = request;
  const problem = problemOf(spec, request, answer);
  const { promptTokens, completionTokens, reasoningTokens } = answer.usage;
  return {
    who: purpose === 'judge' ? 'judge' : purpose === 'student' ? 'untuned student' : `teacher: ${task.kind}${purpose === 'development' ? ', to be judged' : ''}`,
    model: endpointOf(spec, request).model,
    promptTokens, completionTokens, ...(reasoningTokens === undefined ? {} : { reasoningTokens }),
    usd: answer.costUsd,
    latencyMs: Math.round(answer.latencyMs),
    answer: excerpt(answer.text, SHOWN_CHARACTERS),
    ...(problem === undefined ? {} : { problem: problem.slice(0, PROBLEM_CHARACTERS) }),
  };
}

/** Why an answer is of no use. What an untuned student says need not be right, only be there. */
function problemOf(spec: CampaignSpec, request: TeacherRequest, answer: ReadAnswer): string | undefined {
  if (request.purpose === 'judge') {
    const read = readJudgement(answer.text);
    return 'problem' in read ? read.problem : undefined;
  }
  if (request.purpose === 'student') return answer.text.trim() === '' ? (answer.note ?? `expected an answer, got none (finish reason ${answer.finishReason})`) : undefined;
  if (request.task.kind === 'json' && request.row === undefined && request.task.schemaName === 'attributes') return answer.problem;
  const judged = candidatesOf(spec, 1, request, answer);
  const [first] = judged;
  if (judged.every(({ reason }) => reason !== undefined)) return `${first?.reason}: ${first?.detail ?? ''}`;
  if (spec.teacher.calibration === 'none' || request.task.kind !== 'label' || answer.labelLogProbs !== undefined) return undefined;
  return 'teacher.calibration: prior needs answers with the log-probabilities of the labels, got none; set calibration: none for this teacher';
}
