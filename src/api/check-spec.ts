/** What a valid spec asks for and this machine may not have: found out before anything is started or paid. */
import { stat } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { DATASETS, MODELS } from '../assets/catalogue.ts';
import { parseHubName } from '../assets/hub.ts';
import { hostedEndpoint } from '../contracts/campaign-spec.ts';
import type { CampaignSpec, EndpointSpec, StudentSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { sourcesOf } from '../contracts/sampling-spec.ts';
import type { SpecProblem } from '../contracts/parse-spec.ts';
import { DATASET_ENDINGS, isDatasetPath } from '../dataset/record-file.ts';
import { baseUrlOf } from '../teacher/openai-client.ts';
import { fineTuningClosed, priceOf, retirementOf, trainingUsdPerMillion } from '../teacher/prices.ts';

/** Whether an environment variable of that name is set, so that a worker can read the key. */
export type HasSecret = (name: string) => boolean;

interface CheckDeps {
  readonly hasSecret: HasSecret;
  readonly nowMs: number;
}

const names = (known: object): string => Object.keys(known).sort().join(', ');

async function datasetProblem(path: string, dataset: string): Promise<SpecProblem | undefined> {
  const got = JSON.stringify(dataset);
  if (dataset.startsWith('catalogue:')) {
    return Object.hasOwn(DATASETS, dataset.slice('catalogue:'.length)) ? undefined : { path, expected: `catalogue: with one of ${names(DATASETS)}`, got };
  }
  if (!isDatasetPath(dataset)) return { path, expected: `catalogue:NAME or the path of a file ending in ${DATASET_ENDINGS}`, got };
  if (!isAbsolute(dataset)) return { path, expected: 'an absolute path (the CLI resolves a relative one against the spec file)', got };
  const status = await stat(dataset).catch(() => undefined);
  return status?.isFile() === true ? undefined : { path, expected: 'a file that exists where the service runs', got };
}

async function modelProblem(path: string, model: string): Promise<SpecProblem | undefined> {
  if (Object.hasOwn(MODELS, model)) return undefined;
  const got = JSON.stringify(model);
  if (model.startsWith('hf:')) {
    try {
      parseHubName(model);
      return undefined;
    } catch {
      return { path, expected: 'hf:ORGANISATION/NAME[/FILE.gguf][@REVISION]', got };
    }
  }
  if (isAbsolute(model) && (await stat(model).catch(() => undefined)) !== undefined) return undefined;
  return { path, expected: `one of ${names(MODELS)}, hf:ORGANISATION/NAME[@REVISION], or the absolute path of a GGUF file or model folder`, got };
}

async function endpointProblem(path: string, endpoint: EndpointSpec, { hasSecret, nowMs }: CheckDeps): Promise<SpecProblem | undefined> {
  if (endpoint.provider === 'local') return modelProblem(`${path}.model`, endpoint.model);
  return retiredProblem(path, endpoint, nowMs) ?? keyProblem(path, endpoint, hasSecret) ?? priceProblem(path, endpoint);
}

const unsetSecret = (path: string, name: string): SpecProblem => ({
  path,
  expected: `an API key in the environment variable ${name} where the service runs`,
  got: 'none (set it and start the service again; an endpoint that needs no key takes any value)',
});

function keyProblem(path: string, endpoint: EndpointSpec, hasSecret: HasSecret): SpecProblem | undefined {
  if (!hasSecret(endpoint.apiKeyEnv)) return unsetSecret(`${path}.apiKeyEnv`, endpoint.apiKeyEnv);
  for (const [header, value] of Object.entries(endpoint.headers ?? {})) {
    const unset = [...value.matchAll(/\$\{([A-Z][A-Z0-9_]*)\}/g)].map(([, name = '']) => name).find((name) => !hasSecret(name));
    if (unset !== undefined) return unsetSecret(`${path}.headers.${header}`, unset);
  }
  return undefined;
}

type HostedModel = Pick<EndpointSpec, 'provider' | 'model' | 'baseUrl'>;

function retiredProblem(path: string, endpoint: HostedModel, nowMs: number): SpecProblem | undefined {
  const retirement = retirementOf(endpoint, undefined, nowMs);
  if (retirement?.state !== 'retired') return undefined;
  return { path: `${path}.model`, expected: 'a model that answers', got: `${endpoint.model}, which its provider retired on ${retirement.day}` };
}

async function studentProblem(student: StudentSpec, { hasSecret, nowMs }: CheckDeps): Promise<SpecProblem | undefined> {
  if (student.provider === 'local') return await modelProblem('student.model', student.model);
  const retired = retiredProblem('student', student, nowMs);
  if (retired !== undefined) return retired;
  try {
    trainingUsdPerMillion(student, baseUrlOf(student));
  } catch (error) {
    if (!(error instanceof StillhouseError)) throw error;
    return problemOf('student.price', error);
  }
  const closed = fineTuningClosed(baseUrlOf(student), nowMs);
  if (closed !== undefined) return { path: 'student.provider', expected: `a local student or another provider's baseUrl (${closed})`, got: 'OpenAI' };
  return keyProblem('student', hostedEndpoint(student), hasSecret);
}

/** What a contestant names beside the campaign's own models: another student, a model to learn from. */
async function contestantProblems({ tournament, student }: CampaignSpec): Promise<readonly (SpecProblem | undefined)[]> {
  const checks = (tournament?.contestants ?? []).flatMap(({ student: own, training }, index) => {
    const at = `tournament.contestants[${index}]`;
    const chosen: unknown = own?.['model'];
    const teacher: unknown = (training?.['teacher'] as { readonly model?: unknown } | null | undefined)?.model;
    return [
      ...(typeof chosen === 'string' && chosen !== student.model ? [modelProblem(`${at}.student.model`, chosen)] : []),
      ...(typeof teacher === 'string' ? [modelProblem(`${at}.training.teacher.model`, teacher)] : []),
    ];
  });
  return await Promise.all(checks);
}

function priceProblem(path: string, endpoint: EndpointSpec): SpecProblem | undefined {
  try {
    priceOf(endpoint, baseUrlOf(endpoint));
    return undefined;
  } catch (error) {
    if (!(error instanceof StillhouseError)) throw error;
    return problemOf(`${path}.price`, error);
  }
}

/** What a failure says as a problem of one key; of one that is about no key of the spec, as a table of prices that cannot be read, its words. */
function problemOf(path: string, { message, details: { expected, got } }: StillhouseError): SpecProblem {
  return typeof expected === 'string' && typeof got === 'string' ? { path, expected, got } : { path, expected: 'a table of prices that can be read', got: message };
}

/** A model that will be gone before the campaign must be over. */
function retirementWarning(path: string, endpoint: HostedModel, hours: number | undefined, nowMs: number): readonly string[] {
  const retirement = retirementOf(endpoint, hours, nowMs);
  if (retirement?.state !== 'retiring') return [];
  const until = hours === undefined ? 'which may be before this campaign ends' : `which lies within its ${hours} hours`;
  return [`${path}.model: ${endpoint.model} answers no more from ${retirement.day}, ${until}; ${path === 'teacher' ? 'another teacher can be set while it runs' : 'name another'}`];
}

/**
 * BAD_INPUT with every problem: unknown catalogue names, files that are not there, a hosted model that
 * has no key, no price or no future. Resolves with what a user should know all the same.
 */
export async function checkSpec(spec: CampaignSpec, hasSecret: HasSecret, nowMs: number = Date.now()): Promise<readonly string[]> {
  const { sampling, evaluation, teacher, student } = spec;
  const deps = { hasSecret, nowMs };
  const found = await Promise.all([
    endpointProblem('teacher', teacher, deps),
    studentProblem(student, deps),
    ...sourcesOf(sampling.source).map(({ source, path }) =>
      'dataset' in source ? datasetProblem(`sampling.source.${path.length === 0 ? '' : `sources[${path[1]}].`}dataset`, source.dataset) : undefined,
    ),
    evaluation.source.kind === 'dataset' ? datasetProblem('evaluation.source.dataset', evaluation.source.dataset) : undefined,
    evaluation.scorer.kind === 'judge' ? endpointProblem('evaluation.scorer.judge', evaluation.scorer.judge, deps) : undefined,
  ]);
  const problems = [...found, ...(await contestantProblems(spec))].filter((problem) => problem !== undefined);
  if (problems.length === 0) {
    const { hours } = spec.budget;
    const judge = evaluation.scorer.kind === 'judge' ? retirementWarning('evaluation.scorer.judge', evaluation.scorer.judge, hours, nowMs) : [];
    return [...retirementWarning('teacher', teacher, hours, nowMs), ...(student.provider === 'local' ? [] : retirementWarning('student', student, hours, nowMs)), ...judge];
  }
  const lines = problems.map(({ path, expected, got }) => `${path}: expected ${expected}, got ${got}`);
  throw new StillhouseError('BAD_INPUT', `spec: ${lines.join('\n  ')}`, { details: { problems } });
}
