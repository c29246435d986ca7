/** The probabilities of labels, read off the tokens of an answer that names one: how sure it is, never which it is. */

/** A token and its natural-log probability; null where the endpoint does not say. */
export interface AlternativeToken {
  readonly token: string;
  readonly logProb: number | null;
}
export interface AnswerToken {
  readonly token: string;
  readonly logProb?: number | null;
  /** The most probable tokens at this position, the written one among them or not. */
  readonly alternatives?: readonly AlternativeToken[] | null;
}

/** Endpoints write -9999 for a token outside of those that they rank. */
const NEVER_BELOW = -1_000;
const LEAST_PROBABILITY = 1e-12;

/**
 * Log-probabilities of the labels, normalised over them, given that `written` was written with these tokens.
 *
 * They are those after whatever stands before the label, and follow it token by token until its own differ from those
 * of every other label. At each position a token counts for the one label that it leads to. One that leads to several
 * others is shared out evenly, since only their sum is known; one that leads to the written label among others counts
 * for none. A label that no token counts for gets the most that it can have: such shared tokens, and what the
 * alternatives leave over, at most the least likely of them.
 *
 * Undefined where the tokens do not tell: the label does not stand in them once, they end before it is told apart,
 * or the written token has no known probability. The written label need not be the likeliest: a draw at a
 * temperature is not.
 */
export function labelLogProbs(labels: readonly string[], written: string, tokens: readonly AnswerToken[] | null | undefined): readonly number[] | undefined {
  const own = labels.indexOf(written);
  const start = tokens == null || own < 0 ? undefined : startOf(plain(written), tokens.map(({ token }) => textOf(token)));
  if (tokens == null || start === undefined) return undefined;
  const forms = labels.map(plain);
  const mass = forms.map(() => 0);
  const floor = forms.map(() => LEAST_PROBABILITY);
  const groups: { readonly labels: readonly number[]; readonly probability: number }[] = [];
  let reached = '';
  let path = 1;
  for (const [offset, { token, logProb, alternatives }] of tokens.slice(start.token).entries()) {
    // A token may hold what stands before the label as well.
    const text = offset === 0 ? textOf(token).slice(start.within) : textOf(token);
    const ranked = new Map((alternatives ?? []).map((each) => [each.token, probabilityOf(each.logProb)]));
    const likely = ranked.get(token) ?? probabilityOf(logProb);
    if (likely === undefined || likely === 0) return undefined;
    ranked.delete(token);
    const known = [...ranked].flatMap(([other, probability]): (readonly [string, number])[] => (probability === undefined ? [] : [[other, probability]]));
    const seen = known.reduce((sum, [, probability]) => sum + probability, likely);
    const least = known.reduce((lowest, [, probability]) => (probability > 0 ? Math.min(lowest, probability) : lowest), likely);
    for (const label of beginningWith(forms, reached)) floor[label] = Math.max(path * Math.min(Math.max(0, 1 - seen), least), LEAST_PROBABILITY);
    for (const [other, probability] of known) {
      const led = ledTo(forms, reached, textOf(other));
      const [only] = led;
      if (only === undefined) continue;
      if (led.length === 1 && probability === 0) floor[only] = LEAST_PROBABILITY;
      else if (led.length === 1) mass[only] = (mass[only] as number) + path * probability;
      else if (!led.includes(own)) groups.push({ labels: led, probability: path * probability });
      else for (const label of led) floor[label] = (floor[label] as number) + path * probability;
    }
    path *= likely;
    const led = ledTo(forms, reached, text);
    if (!led.includes(own)) return undefined;
    if (led.length === 1) {
      mass[own] = (mass[own] as number) + path;
      for (const group of groups) for (const label of group.labels) mass[label] = (mass[label] as number) + group.probability / group.labels.length;
      return normalised(mass.map((probability, label) => (probability === 0 ? (floor[label] as number) : probability)));
    }
    reached += reached === '' ? plain(text) : text.toLowerCase();
  }
  return undefined;
}

const beginningWith = (forms: readonly string[], start: string): readonly number[] => forms.flatMap((form, label) => (form.startsWith(start) ? [label] : []));
const plain = (text: string): string => text.trimStart().toLowerCase();

/** A token as it reads: vocabularies spell a space Ġ or ▁ and a line break Ċ. */
const textOf = (token: string): string => token.replace(/^[Ġ▁]+/, (spaces) => ' '.repeat(spaces.length)).replace(/Ċ/g, '\n');

/** Undefined where it is not known. */
function probabilityOf(logProb: number | null | undefined): number | undefined {
  if (typeof logProb !== 'number' || Number.isNaN(logProb)) return undefined;
  return logProb < NEVER_BELOW ? 0 : Math.exp(Math.min(0, logProb));
}

/** Where the label begins, where it stands in the answer as a word, once. */
function startOf(label: string, texts: readonly string[]): { readonly token: number; readonly within: number } | undefined {
  const whole = texts.join('').toLowerCase();
  const places: number[] = [];
  for (let at = whole.indexOf(label); at >= 0; at = whole.indexOf(label, at + 1)) {
    const joined = startsWord(label) && WORD.test(whole.slice(0, at).at(-1) ?? '');
    if (!joined && !(WORD.test(label.at(-1) ?? '') && startsWord(whole.slice(at + label.length)))) places.push(at);
  }
  const [place] = places;
  if (place === undefined || places.length > 1) return undefined;
  let before = 0;
  for (const [token, text] of texts.entries()) {
    if (place < before + text.length) return { token, within: place - before };
    before += text.length;
  }
  return undefined;
}

/** What may stand between the beginning of an answer and its label. */
const LEAD = /^[\s"'`*_“”‘’「『《([{#>-]+/u;
/** What ends an answer: no text, or a special token as vocabularies spell it. */
const END = /^(?:<[|/].*>|)$/;
const WORD = /[\p{L}\p{N}]/u;
const startsWord = (text: string): boolean => WORD.test([...text][0] ?? '');

/** The labels that an answer may still become once `text` follows the part of a label that was reached. */
function ledTo(forms: readonly string[], reached: string, text: string): readonly number[] {
  if (END.test(text)) return forms.flatMap((form, label) => (form === reached ? [label] : []));
  const next = text.toLowerCase();
  // At its beginning a label may have quotes before it, unless they are its own.
  for (const way of reached === '' ? [next.trimStart(), next.replace(LEAD, '')] : [reached + next]) {
    const begun = beginningWith(forms, way);
    const ended = forms.flatMap((form, label) => (way.length > form.length && way.startsWith(form) && !startsWord(way.slice(form.length)) ? [label] : []));
    const longest = Math.max(0, ...ended.map((label) => (forms[label] as string).length));
    // Of labels inside of each other the longest has ended; a word that goes on with a longer one ends none.
    const over = ended.filter((label) => (forms[label] as string).length === longest && (begun.length === 0 || !WORD.test(way.slice(longest))));
    if (begun.length + over.length > 0) return [...begun, ...over];
  }
  return [];
}

function normalised(probabilities: readonly number[]): readonly number[] {
  const total = probabilities.reduce((sum, probability) => sum + probability, 0);
  return probabilities.map((probability) => Math.fround(Math.log(probability / total)));
}
