/** What of a campaign under way can be set otherwise: whatever changes nothing of what was bought. */
import { campaignSpecSchema, trainingOf } from '../contracts/campaign-spec.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import { validateSpec } from '../contracts/parse-spec.ts';
import { decisiveTraining } from '../contracts/training-spec.ts';
import { canonicalJson } from '../store/jsonl.ts';
import { withTeacher, writtenSpec } from './change-spec.ts';

type Tree = Readonly<Record<string, unknown>>;
const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Keys, and all below them. */
const SETTABLE = [
  'filter', 'training', 'iterate', 'evaluation.bootstrapResamples', 'sampling.batchSize', 'sampling.rowsPerLaterRound',
  ...['teacher', 'evaluation.scorer.judge', 'student'].flatMap((endpoint) => ['concurrency', ...(endpoint === 'student' ? [] : ['timeoutSeconds', 'limits'])].map((key) => `${endpoint}.${key}`)),
] as const;

/** What changes the rest. */
const INSTEAD: Readonly<Record<string, (campaign: string) => string>> = {
  teacher: (campaign) => `still teacher ${campaign} --model OTHER changes who answers and how`,
  budget: (campaign) => `still budget ${campaign} --usd, --tokens or --hours raises limits`,
  name: (campaign) => `still fork ${campaign} --from-round N --name OTHER goes on under another name`,
};
const ANEW = (campaign: string): string => `still fork ${campaign} --from-round N --spec FILE goes on with it from a finished round, and a new campaign begins with it; what was bought is reused where the question is the same`;

/** The settings of a patch, by their paths, down to where the schema has no more keys of ours. */
function pathsOf(patch: Tree, above = ''): readonly string[] {
  return Object.entries(patch).flatMap(([key, value]) => {
    const path = above === '' ? key : `${above}.${key}`;
    return isTree(value) && Object.keys(value).length > 0 ? pathsOf(value, path) : [path];
  });
}

/** JSON merge patch (RFC 7396): mappings are merged, null takes a key away, all else replaces. */
function merged(value: unknown, patch: unknown): unknown {
  if (!isTree(patch)) return patch;
  const kept: Record<string, unknown> = { ...(isTree(value) ? value : {}) };
  for (const [key, change] of Object.entries(patch)) {
    if (change === null) delete kept[key];
    else Object.defineProperty(kept, key, { value: merged(kept[key], change), enumerable: true, configurable: true, writable: true });
  }
  return kept;
}

function refuseOthers(campaign: string, patch: Tree): void {
  const paths = pathsOf(patch);
  if (paths.length === 0) throw new StillhouseError('BAD_INPUT', `settings: expected at least one, as in training.maxTokens=1024, got none`);
  const other = paths.find((path) => !SETTABLE.some((key) => path === key || path.startsWith(`${key}.`)));
  if (other === undefined) return;
  const [section = ''] = other.split('.');
  const known = Object.hasOwn(campaignSpecSchema.shape, section);
  const instead = known ? `; ${(INSTEAD[section] ?? ANEW)(campaign)}` : '';
  throw new StillhouseError('BAD_INPUT', `${other}: expected one of ${SETTABLE.map((key) => (key.includes('.') ? key : `${key}.*`)).join(', ')}, got ${known ? 'a key that what was bought or evaluated depends on' : 'an unknown key'}${instead}`);
}

/** Settings of a method, or of adapters, that the change has left behind are taken away with it, unless it names them. */
function withoutForeign(value: Tree, patch: Tree): Tree {
  const { training } = value;
  if (!isTree(training)) return value;
  const named = isTree(patch['training']) ? patch['training'] : {};
  const issues = campaignSpecSchema.safeParse(value).error?.issues ?? [];
  const foreign = new Set(issues.flatMap(({ code, path }) => (code === 'custom' && path.length === 2 && path[0] === 'training' && !(String(path[1]) in named) && isTree(training[String(path[1])]) ? [path[1]] : [])));
  return foreign.size === 0 ? value : { ...value, training: Object.fromEntries(Object.entries(training).filter(([key]) => !foreign.has(key))) };
}

export interface ChangedSettings {
  readonly spec: CampaignSpec;
  /** Why a training that is under way begins anew, where it does. */
  readonly outdates?: string;
  /** What a person should know of when the settings count. */
  readonly notes: readonly string[];
}

/** The spec with the settings of the patch, whole and valid; BAD_INPUT names what cannot be set, and what would do it. */
export function changeSettings(spec: CampaignSpec, patch: Tree): ChangedSettings {
  refuseOthers(spec.name, patch);
  const written = writtenSpec(spec);
  const changed = validateSpec(withoutForeign(merged(written, patch) as Tree, patch), 'settings');
  if (canonicalJson(changed) === canonicalJson(validateSpec(written))) throw new StillhouseError('BAD_INPUT', `settings: expected a change, got what is set already (${pathsOf(patch).join(', ')})`);
  const outdates = outdatedBy(spec, changed);
  const filters = 'filter' in patch || changed.training.maxTokens !== spec.training.maxTokens;
  return {
    spec: withTeacher(changed, changed.teacher, spec),
    ...(outdates === undefined ? {} : { outdates }),
    notes: [
      ...('training' in patch ? [outdates === undefined ? 'a training that is under way goes on from its checkpoint' : `a training that is under way begins anew from its first epoch, after the epoch that runs now: ${outdates}`] : []),
      ...(filters ? ['rows are filtered by it from the next dataset on; pool rows that were left out when the campaign began stay out'] : []),
    ],
  };
}

/** What makes checkpoints of the one spec useless by the other; undefined where they can be gone on from. */
export function outdatedBy(before: CampaignSpec, now: CampaignSpec): string | undefined {
  if (now.student.provider === 'openai') return undefined;
  const [old, present] = [before, now].map((spec) => decisiveTraining(trainingOf(spec)) as Tree) as [Tree, Tree];
  const shown = (value: unknown): string => (value === undefined ? 'none' : canonicalJson(value).slice(0, 80));
  const keys = [...new Set([...Object.keys(old), ...Object.keys(present)])].filter((key) => canonicalJson(old[key] ?? null) !== canonicalJson(present[key] ?? null));
  return keys.length === 0 ? undefined : keys.map((key) => `training.${key} was ${shown(old[key])} and is ${shown(present[key])}`).join('; ');
}
