/** A campaign file as the service wants it: validated, with its paths made absolute. */
import { dirname, isAbsolute, resolve } from 'node:path';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { parseSpec } from '../contracts/parse-spec.ts';
import { readWholeText } from '../dataset/text-file.ts';

export async function readSpecFile(path: string): Promise<CampaignSpec> {
  const text = await readWholeText(path).catch((cause: unknown) => {
    throw new StillhouseError('BAD_INPUT', `expected a campaign file, got ${JSON.stringify(path)}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  });
  return withAbsolutePaths(parseSpec(text, path), dirname(resolve(path)));
}

/** Paths in a spec are relative to its file; a local model with a slash or the ending .gguf is one, any other is a name. */
export function withAbsolutePaths(spec: CampaignSpec, folder: string): CampaignSpec {
  const dataset = (name: string): string => (name.startsWith('catalogue:') || isAbsolute(name) ? name : resolve(folder, name));
  const model = (name: string): string => (!name.startsWith('hf:') && /[/\\]|\.gguf$/i.test(name) ? resolve(folder, name) : name);
  const endpoint = <T extends { readonly provider: string; readonly model: string }>(one: T): T => (one.provider === 'local' ? { ...one, model: model(one.model) } : one);
  const rows = <T extends object>(source: T): T => ('dataset' in source && typeof source.dataset === 'string' ? { ...source, dataset: dataset(source.dataset) } : source);
  const { sampling, evaluation, tournament } = spec;
  // A change of a model, or of the model to learn from: whatever else it holds stays.
  const chosen = <T extends Readonly<Record<string, unknown>>>(choice: T): T => (typeof choice['model'] === 'string' ? { ...choice, model: model(choice['model']) } : choice);
  const learning = <T extends { readonly teacher?: unknown }>(training: T): T =>
    typeof training.teacher === 'object' && training.teacher !== null ? { ...training, teacher: chosen(training.teacher as Readonly<Record<string, unknown>>) } : training;
  return {
    ...spec,
    teacher: endpoint(spec.teacher),
    student: endpoint(spec.student),
    training: learning(spec.training),
    ...(tournament === undefined ? {} : {
      tournament: {
        ...tournament,
        contestants: tournament.contestants.map(({ student, training, ...rest }) => ({
          ...rest, ...(student === undefined ? {} : { student: chosen(student) }), ...(training === undefined ? {} : { training: learning(training) }),
        })),
      },
    }),
    sampling: { ...sampling, source: sampling.source.kind === 'mixed' ? { ...sampling.source, sources: sampling.source.sources.map(rows) } : rows(sampling.source) },
    evaluation: {
      ...evaluation,
      source: evaluation.source.kind === 'dataset' ? { ...evaluation.source, dataset: dataset(evaluation.source.dataset) } : evaluation.source,
      scorer: evaluation.scorer.kind === 'judge' ? { ...evaluation.scorer, judge: endpoint(evaluation.scorer.judge) } : evaluation.scorer,
    },
  };
}
