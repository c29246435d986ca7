/**
 * The trainer port over a provider's fine-tuning API: one job trains all epochs, and what it leaves is
 * the name of a model. The job is a purchase like any other: its intent is in the ledger before it is
 * created, its result before it counts, and the same training is never bought twice, by nobody.
 */
import { createHash } from 'node:crypto';
import type { FineTuningJob } from 'openai/resources/fine-tuning/jobs/jobs';
import type { ArtifactRef } from '../../contracts/artifacts.ts';
import type { CampaignSpec, HostedStudentSpec } from '../../contracts/campaign-spec.ts';
import { StillhouseError } from '../../contracts/errors.ts';
import type { InputRow, Sample } from '../../contracts/records.ts';
import type { Cost, Spending } from '../../contracts/state.ts';
import type { Claim, Ledger, LedgerCall } from '../../ledger/ledger.ts';
import { canonicalJson, getRows, putRows } from '../../store/jsonl.ts';
import type { ArtifactStore } from '../../store/store.ts';
import { baseUrlOf } from '../../teacher/openai-client.ts';
import { fineTuningClosed, trainingUsdPerMillion } from '../../teacher/prices.ts';
import type { EpochJob, EpochResult } from '../trainer.ts';
import { trainingFile, validationFile } from './chat-files.ts';
import { putHostedModel } from './hosted-model.ts';
import { hostedModel, lossCurve, progressOf } from './job-record.ts';
import type { HostedProgress } from './job-record.ts';
import { cancelJob, createJob, findJob, findJobInFlight, isOver, jobMetrics, viewJob } from './jobs.ts';
import type { JobOrder } from './jobs.ts';
import { HOSTED_TIMINGS, Provider } from './provider.ts';
import type { HostedTimings } from './provider.ts';

export interface HostedTrainerDeps {
  readonly store: ArtifactStore;
  readonly ledger: Ledger;
  /** The value of a named secret; UNAUTHORIZED when it is not set. */
  readonly readSecret: (name: string) => string;
  readonly timings?: Partial<HostedTimings>;
}

/** Whose training it is. */
export interface HostedOrder {
  readonly spec: CampaignSpec & { readonly student: HostedStudentSpec };
  readonly campaign: string;
  readonly round: number;
  /** InputRow[]: those with a gold output are the validation file. */
  readonly development?: ArtifactRef;
  /** Names the execution that pays: its attempts are settled together. */
  readonly run: string;
}

export interface HostedResult extends EpochResult {
  readonly spending: Spending;
}

/** Whose student it is, the trainer knows already. */
export type HostedJob = Omit<EpochJob, 'student'>;

export interface HostedOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: HostedProgress) => void;
}

export interface HostedTrainer {
  /** All epochs at once: a provider's job cannot be divided. A stop leaves the job as it is, for the next call to find. */
  trainEpoch(job: HostedJob, options: HostedOptions): Promise<HostedResult>;
  /** This campaign no longer wants the result. Cancels the job that such training has created, if it has, unless another campaign waits for it; what it had cost by then. */
  cancel(job: HostedJob): Promise<Spending>;
}

/** What is kept in the ledger as the answer to a training. */
type RecordedResult = EpochResult;

const WAIT_FOR_OTHERS_MS = 2_000;

export const isHosted = (spec: CampaignSpec): spec is HostedOrder['spec'] => spec.student.provider === 'openai';

/** The most that training on these rows can cost. */
export function trainingUpperBound({ student, training }: HostedOrder['spec'], samples: readonly Sample[]): Cost {
  const tokens = trainingFile(samples).tokenUpperBound * training.epochs;
  return { usd: (tokens * trainingUsdPerMillion(student, baseUrlOf(student))) / 1e6, tokens };
}

export function createHostedTrainer(deps: HostedTrainerDeps, order: HostedOrder): HostedTrainer {
  return new OpenAITrainer(deps, order);
}

interface Prepared {
  readonly order: JobOrder;
  readonly call: LedgerCall & { readonly batch: string };
}

class OpenAITrainer implements HostedTrainer {
  readonly #deps: HostedTrainerDeps;
  readonly #order: HostedOrder;

  constructor(deps: HostedTrainerDeps, order: HostedOrder) {
    this.#deps = deps;
    this.#order = order;
  }

  async trainEpoch(job: HostedJob, options: HostedOptions): Promise<HostedResult> {
    const { ledger } = this.#deps;
    const prepared = await this.#prepare(job);
    const { key, batch, campaign } = prepared.call;
    await ledger.followers.join(key, batch);
    await using claim = await ledger.claim();
    const provider = this.#provider(options.signal);
    const known = await this.#takeTurn(prepared, claim, provider);
    if (known === undefined) await this.#train(prepared, provider, options.onProgress);
    const result = known ?? (await this.#recorded(key));
    if (result === undefined) throw new StillhouseError('INTERNAL', `expected the result of training ${key.slice(0, 12)} in the ledger, got none`);
    await ledger.followers.leave(key, batch);
    await ledger.recordReuse({ batch, campaign, keys: [{ key, purpose: 'fine-tuning' }] });
    const spending = await this.#spent(batch);
    return { ...result, spending: spending.callsBought === 0 ? { ...spending, callsReused: 1 } : spending };
  }

  async cancel(job: HostedJob): Promise<Spending> {
    const { ledger } = this.#deps;
    const { call, order } = await this.#prepare(job);
    const provider = this.#provider();
    await using claim = await ledger.claim();
    // With the turn, where nobody has it: whoever wants the job from now on waits until it is ended, and orders another.
    const turn = await this.#intend(call, claim);
    const others = await ledger.followers.leave(call.key, call.batch);
    const find = turn === 'again' ? findJobInFlight : findJob;
    const { live } = others > 0 ? {} : await find(provider, order);
    // One that has succeeded stays: its model is bought, and the ledger's next reader finds it.
    if (live !== undefined && live.status !== 'succeeded') await this.#recordLoss(call, await cancelJob(provider, live));
    else if (turn === 'first') await ledger.withdrawIntents([call.key]);
    return await this.#spent(call.batch);
  }

  #provider(signal?: AbortSignal): Provider {
    const { student } = this.#order.spec;
    return new Provider(student, this.#deps.readSecret, { ...HOSTED_TIMINGS, ...this.#deps.timings }, signal);
  }

  async #prepare(job: HostedJob): Promise<Prepared> {
    const { store } = this.#deps;
    const { spec, campaign, round, development, run } = this.#order;
    const { student } = spec;
    const training = trainingFile(await getRows<Sample>(store, job.dataset));
    const validation = development === undefined ? undefined : validationFile(spec.task, await getRows<InputRow>(store, development));
    const provider = baseUrlOf(student);
    // The development rows decide nothing about the weights: they are no part of the key.
    const request = canonicalJson({
      kind: 'fine-tuning', provider, model: student.model, training: training.sha256, epochs: job.training.epochs, seed: job.seed, ...student.fineTuning,
    });
    const key = createHash('sha256').update(request).digest('hex');
    return {
      order: {
        key, student, epochs: job.training.epochs, seed: job.seed, suffix: `${campaign}-${round}`, training,
        ...(validation === undefined ? {} : { validation }),
      },
      call: { key, provider, model: student.model, request, campaign, purpose: 'fine-tuning', batch: [run, campaign, 'fine-tuning', key].join(' ') },
    };
  }

  async #recorded(key: string): Promise<RecordedResult | undefined> {
    const answer = (await this.#deps.ledger.lookup([key])).get(key);
    return answer === undefined ? undefined : (JSON.parse(answer.text) as RecordedResult);
  }

  /** The recorded result, or undefined when this process alone may create or follow the job: its intent is durable then. */
  async #takeTurn({ call, order }: Prepared, claim: Claim, provider: Provider): Promise<RecordedResult | undefined> {
    for (;;) {
      const known = await this.#recorded(call.key);
      if (known !== undefined) return known;
      const turn = await this.#intend(call, claim);
      if (turn === 'elsewhere') {
        await provider.pause(Math.min(WAIT_FOR_OTHERS_MS, provider.timings.pollMs));
        continue;
      }
      if (turn === 'first') return undefined;
      const { live, ended } = await findJobInFlight(provider, order);
      if (live === undefined && ended !== undefined) await this.#giveUp(call, ended);
      return undefined;
    }
  }

  /** Whether the claim has the job for itself now, and whether an earlier attempt may have created it already. */
  async #intend(call: LedgerCall, claim: Claim): Promise<'first' | 'again' | 'elsewhere'> {
    const { ledger } = this.#deps;
    const { elsewhere, repeated } = await ledger.recordIntents([call], claim);
    if (elsewhere.length > 0) return 'elsewhere';
    if (repeated.length === 0) return 'first';
    // The job that an earlier attempt has created is found, or there is none: either way this attempt buys nothing twice.
    await ledger.withdrawIntents(repeated);
    return 'again';
  }

  async #train({ order, call }: Prepared, provider: Provider, onProgress: HostedOptions['onProgress']): Promise<void> {
    const { live, ended } = await findJob(provider, order);
    let job: FineTuningJob;
    try {
      const closed = live === undefined ? fineTuningClosed(provider.baseUrl, Date.now()) : undefined;
      if (closed !== undefined) throw new StillhouseError('BAD_INPUT', `student.provider: expected a provider that takes fine-tuning jobs: ${closed}, got OpenAI`);
      job = live ?? (await createJob(provider, order, ended));
    } catch (error) {
      // What was refused was not bought; of what was cut off nobody knows.
      if (error instanceof StillhouseError && !['UNAVAILABLE', 'CANCELLED', 'INTERNAL'].includes(error.code)) await this.#deps.ledger.withdrawIntents([call.key]);
      throw error;
    }
    for (;;) {
      const view = await viewJob(provider, job.id);
      ({ job } = view);
      onProgress?.(progressOf(view, order));
      if (isOver(job)) break;
      await provider.pause(provider.timings.pollMs);
    }
    if (job.status !== 'succeeded') await this.#giveUp(call, job);
    await this.#record({ order, call }, provider, job);
  }

  /** A job that ended without a model is told once; whoever resumes orders another. */
  async #giveUp(call: Prepared['call'], job: FineTuningJob): Promise<never> {
    await this.#recordLoss(call, job);
    await this.#deps.ledger.followers.leave(call.key, call.batch);
    const { student } = this.#order.spec;
    const reason = job.status === 'failed' ? `failed: ${job.error?.message ?? 'no reason given'}` : 'cancelled at the provider';
    throw new StillhouseError('BAD_INPUT', `expected the fine-tuning job ${job.id} of ${student.model} at ${baseUrlOf(student)} to succeed, got ${reason}. Resuming orders a new job`, {
      details: { job: job.id, spending: await this.#spent(call.batch) },
    });
  }

  /** The order is open to be given again; what a job without a model has cost, as far as the provider says, stays in the books. */
  async #recordLoss(call: Prepared['call'], { id, status, trained_tokens: tokens }: FineTuningJob): Promise<void> {
    const { ledger } = this.#deps;
    if (tokens !== null && tokens > 0) {
      const key = createHash('sha256').update(`${call.key} ${id}`).digest('hex');
      await ledger.recordIntents([{ ...call, key }]);
      const usage = { promptTokens: tokens, cachedPromptTokens: 0, completionTokens: 0 };
      await ledger.recordAnswers([{ key, answer: { text: `${id} ${status}`, finishReason: 'stop', usage, costUsd: this.#costUsd(tokens), latencyMs: 0, model: call.model } }]);
    }
    await ledger.withdrawIntents([call.key]);
  }

  async #spent(batch: string): Promise<Spending> {
    const { usd, tokens, calls } = await this.#deps.ledger.batchSpending(batch);
    // A repeated attempt goes on with the job of the one before: nothing is bought twice.
    return { usd, tokens, callsBought: calls, callsReused: 0, callsRepeated: 0 };
  }

  #costUsd(trainedTokens: number): number {
    const { student } = this.#order.spec;
    return (trainedTokens * trainingUsdPerMillion(student, baseUrlOf(student))) / 1e6;
  }

  async #record({ order, call }: Prepared, provider: Provider, job: FineTuningJob): Promise<void> {
    const { store, ledger } = this.#deps;
    if (job.fine_tuned_model === null) throw new StillhouseError('UNAVAILABLE', `expected the job ${job.id} that succeeded to name its model, got none`);
    const curve = lossCurve(await jobMetrics(provider, job), order.epochs);
    // A provider that does not count: four bytes a token, as in English text.
    const tokens = job.trained_tokens ?? Math.ceil(order.training.bytes.byteLength / 4) * order.epochs;
    const model = hostedModel(provider, order, job, tokens, this.#costUsd(tokens));
    const seconds = job.finished_at === null ? 0 : Math.max(0, job.finished_at - job.created_at);
    const result: RecordedResult = {
      checkpoint: await putHostedModel(store, model),
      lossCurve: await putRows(store, 'loss-curve', curve),
      steps: curve.at(-1)?.step ?? 0,
      tokens,
      lossFirstNats: curve[0]?.lossNats ?? 0,
      lossLastNats: curve.at(-1)?.lossNats ?? 0,
      seconds,
      stopped: true,
    };
    const usage = { promptTokens: tokens, cachedPromptTokens: 0, completionTokens: 0 };
    await ledger.recordAnswers([{ key: call.key, answer: { text: canonicalJson(result), finishReason: 'stop', usage, costUsd: model.costUsd, latencyMs: seconds * 1_000, model: model.model } }]);
  }
}
