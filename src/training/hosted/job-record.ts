/** What a provider's job tells about itself: how far it is, the loss of its steps, the model that it leaves. */
import type { FineTuningJob } from 'openai/resources/fine-tuning/jobs/jobs';
import type { ReportedLoss } from '../../contracts/records.ts';
import type { EpochProgress } from '../trainer.ts';
import type { HostedModel } from './hosted-model.ts';
import type { JobMetric, JobOrder, JobView } from './jobs.ts';
import type { Provider } from './provider.ts';

export interface HostedProgress extends Pick<EpochProgress, 'step' | 'steps'> {
  /** Absent before the first step. */
  readonly lossNats?: number;
  /** What is going on at the provider, for people. */
  readonly note: string;
}
export function progressOf({ job, message, metric }: JobView, { epochs, training }: JobOrder): HostedProgress {
  const batchSize = job.method?.supervised?.hyperparameters?.batch_size;
  const steps = metric?.steps ?? (typeof batchSize === 'number' ? epochs * Math.ceil(training.rows / batchSize) : 0);
  const note = [`${job.id} ${job.status.replace('_', ' ')}`, ...(message === undefined ? [] : [message])].join(': ');
  return { step: metric?.step ?? 0, steps: Math.max(steps, metric?.step ?? 0), ...(metric === undefined ? {} : { lossNats: metric.lossNats }), note };
}

export function lossCurve(metrics: readonly JobMetric[], epochs: number): readonly ReportedLoss[] {
  const stepsPerEpoch = Math.max(1, Math.ceil((metrics.at(-1)?.step ?? 1) / epochs));
  return metrics.map(({ step, lossNats, validationNats }) => ({
    epoch: Math.floor((step - 1) / stepsPerEpoch), step, lossNats, ...(validationNats === undefined ? {} : { developmentNats: validationNats }),
  }));
}

export function hostedModel({ baseUrl }: Provider, order: JobOrder, job: FineTuningJob, trainedTokens: number, costUsd: number): HostedModel {
  const settled = Object.entries(job.method?.supervised?.hyperparameters ?? job.hyperparameters);
  return {
    format: 'stillhouse/hosted-model/1',
    provider: baseUrl,
    baseModel: job.model,
    model: job.fine_tuned_model ?? '',
    job: job.id,
    trainingFile: job.training_file,
    ...(job.validation_file === null ? {} : { validationFile: job.validation_file }),
    trainingSha256: order.training.sha256,
    ...(job.validation_file === null || order.validation === undefined ? {} : { validationSha256: order.validation.sha256 }),
    hyperparameters: Object.fromEntries(settled.flatMap(([name, value]: [string, unknown]) => (typeof value === 'number' || typeof value === 'string' ? [[name, value]] : []))),
    seed: job.seed,
    trainedTokens,
    costUsd,
  };
}
