/** What would make a paused campaign go on, as the commands that a person can give. Pure. */
import type { ErrorCode } from '../src/contracts/errors.ts';
import type { Budget, CampaignState, Remedy } from '../src/contracts/state.ts';

type Paused = Pick<CampaignState, 'campaign' | 'stage' | 'pauseKind' | 'pauseCode' | 'needs'>;

/** Failures of the machine or of an account: no setting of the campaign cures them. */
export const BEYOND_SETTINGS: ReadonlySet<ErrorCode> = new Set(['UNAUTHORIZED', 'QUOTA_EXHAUSTED', 'DISK_FULL', 'CORRUPT']);

/** `stage`: that whose work has failed, where it is another than the campaign's own. */
export function remediesOf({ campaign, pauseKind, pauseCode, needs, ...paused }: Paused, stage: Paused['stage'] = paused.stage): readonly Remedy[] {
  const still = (command: string, rest: string, effect: string): Remedy => ({ command: `still ${command} ${campaign}${rest === '' ? '' : ` ${rest}`}`, effect });
  const resume = (effect: string): Remedy => still('resume', '', effect);
  const set = (keys: string, effect: string): Remedy => still('set', keys, `${effect}; it goes on by itself`);
  const otherTeacher = still('teacher', '--model OTHER', 'what has no answer yet goes to it; it goes on by itself');
  if (pauseKind === undefined) return [];
  switch (pauseKind) {
    case 'user':
      return [resume('goes on')];
    case 'budget':
      return [still('budget', limitsOf(needs ?? {}), 'the least that lets it go on, which it does by itself')];
    case 'provider':
      return [resume('asks the provider now; it is asked again by itself anyway'), otherTeacher];
    case 'failure':
      return [...cures(stage, pauseCode, set, otherTeacher), resume(RESUME[pauseCode ?? 'INTERNAL'] ?? 'tries the same step again')];
  }
}

const limitsOf = (needs: Budget): string => Object.entries(needs).map(([limit, value]) => `--${limit} ${value}`).join(' ');

/** What has to be done first. */
const RESUME: { readonly [Code in ErrorCode]?: string } = {
  UNAUTHORIZED: 'after the key is right where the workers run',
  QUOTA_EXHAUSTED: 'after the provider is paid or its quota is raised',
  DISK_FULL: 'after there is free space on the disk that the reason names',
  NOT_FOUND: 'after what is missing is there again',
  CORRUPT: 'after the file is restored',
  BAD_INPUT: 'after what the reason names is mended',
  PROCESS_DIED: 'after there is more free memory',
  TOO_LARGE: 'after there is more free memory',
};

function cures(stage: CampaignState['stage'], code: ErrorCode | undefined, set: (keys: string, effect: string) => Remedy, otherTeacher: Remedy): readonly Remedy[] {
  const asks = stage === 'sampling' || stage === 'evaluating' || stage === 'testing';
  switch (code) {
    case 'UNAUTHORIZED':
    case 'QUOTA_EXHAUSTED':
    case 'NOT_FOUND':
      return asks ? [otherTeacher] : [];
    case 'TOO_LARGE':
    case 'PROCESS_DIED':
      return stage === 'training' ? [set('training.rowTokens=FEWER training.batchSize=FEWER', 'takes less memory')] : [];
    case 'DIVERGED':
      return [set('training.learningRate=LOWER', 'trains the round anew')];
    case 'BAD_INPUT':
      if (stage === 'preparing') return [set('filter.KEY=VALUE training.maxTokens=MORE', 'chooses the rows anew')];
      if (stage === 'filtering') return [set('filter.KEY=VALUE training.maxTokens=MORE', 'filters the same answers anew')];
      if (stage === 'training') return [set('training.KEY=VALUE', 'trains the round anew where the setting decides its numbers')];
      return asks ? [otherTeacher] : [];
    default:
      return [];
  }
}
