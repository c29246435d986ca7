/** Which rows are too short, too long or empty: by their characters, and by the tokens in which a student reads them. */
import type { AssetOptions } from '../assets/assets.ts';
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { RejectionReason, Sample } from '../contracts/records.ts';
import { countCharacters } from './text.ts';

export interface RowProblem {
  readonly reason: RejectionReason;
  readonly detail: string;
}

/** Lengths as the trainings of a campaign count them; each answer says what is too long, or nothing. */
export interface Lengths {
  /** Of an input as the student is asked about it, with room for the shortest answer that it may learn. */
  ofInput(input: string): string | undefined;
  /** Of a whole sample, by everything that its training reads. */
  ofSample(sample: Pick<Sample, 'id' | 'messages' | 'rationale'>): string | undefined;
}

/** Opens tokenizers, and no weights. Undefined for a student whose tokens only its provider knows. */
export type OpenLengths = (spec: CampaignSpec, options?: AssetOptions) => Promise<Lengths | undefined>;

/** What the spec's filter says of an input before anybody has answered it. */
export function inputProblem({ minInputCharacters, maxInputCharacters = Infinity }: CampaignSpec['filter'], input: string): RowProblem | undefined {
  if (input.trim() === '') return { reason: 'empty', detail: 'expected an input, got none' };
  const length = countCharacters(input);
  if (length >= minInputCharacters && length <= maxInputCharacters) return undefined;
  const expected = maxInputCharacters === Infinity ? `at least ${minInputCharacters}` : `${minInputCharacters} to ${maxInputCharacters}`;
  return { reason: 'length', detail: `input of ${length} characters, expected ${expected}` };
}

/** Rows between which heartbeats and signals are attended to. */
const ROWS_AT_ONCE = 64;

/** One answer for each item, in order; the event loop goes on meanwhile. */
export async function eachInTurns<T, R>(items: readonly T[], answer: (item: T) => R, signal?: AbortSignal): Promise<readonly R[]> {
  const answers: R[] = [];
  for (const [index, item] of items.entries()) {
    if (index % ROWS_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve));
    signal?.throwIfAborted();
    answers.push(answer(item));
  }
  return answers;
}
