/** The tokens of a server that has no model: pieces of text, and probabilities that are the same for the same text. */

/** At most six characters that are no space, with the space before them; other white space by itself. Joined they are the text. */
export const tokensOf = (text: string): readonly string[] => text.match(/ ?[^\s]{1,6}|\s/gu) ?? [];

export interface TokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[] | null;
}

/** e to this is 0.9: the token that was written is likelier than all others together. */
const WRITTEN = Math.log(0.9);
const OTHERS = ['The', ' a', 'n', '\n', ' It', 'I', ' no', 'Yes', '"', ' is', '{', '.', ' und', 'é', ' not', 'A', '-', ' to', '1', 'S'];

/** A written token and its `count` likeliest alternatives, itself the first. */
export function alternativesOf(token: string, count: number, withBytes: boolean): readonly TokenLogprob[] {
  const one = (text: string, logprob: number): TokenLogprob => ({ token: text, logprob, bytes: withBytes ? [...Buffer.from(text)] : null });
  const others = OTHERS.filter((other) => other !== token).map((other, index) => one(other, Math.log(0.1 / 2 ** (index + 1))));
  return [one(token, WRITTEN), ...others].slice(0, count);
}
