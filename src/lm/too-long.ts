/** Prompts that take more tokens than a model reads. */
import { StillhouseError } from '../contracts/errors.ts';

export interface TooLongPrompt {
  /** Among the prompts of the call. */
  readonly index: number;
  readonly tokens: number;
  /** That the model reads. */
  readonly most: number;
}

/** BAD_INPUT for prompts that take more tokens than a model reads, all of them in its details: a caller may ask without them. */
export function refuseTooLong(lengths: readonly number[], most: number): void {
  const tooLong = lengths.flatMap((tokens, index): TooLongPrompt[] => (tokens > most ? [{ index, tokens, most }] : []));
  const [first] = tooLong;
  if (first !== undefined) throw new StillhouseError('BAD_INPUT', `prompts[${first.index}]: expected at most ${most} tokens, got ${first.tokens}`, { details: { tooLong } });
}

/** The prompts for which such an error was thrown; none for any other error. */
export function tooLongPrompts(error: unknown): readonly TooLongPrompt[] {
  return error instanceof StillhouseError ? ((error.details['tooLong'] as readonly TooLongPrompt[] | undefined) ?? []) : [];
}
