/** The form in which two labels count as the same. */

/** Characters that nobody sees: soft hyphen, zero-width space, direction marks, word joiner, variation selectors, byte order mark. */
const UNSEEN = /\u00AD|\u200B|\u200E|\u200F|\u2060|\uFE0E|\uFE0F|\uFEFF/gu;

/**
 * NFKC, case folded by way of upper case, unseen characters removed, hyphens and apostrophes as a keyboard
 * writes them, runs of white space as one space, none at the ends. Signs and punctuation stay: `-1` is not `1`.
 */
export function labelForm(text: string): string {
  return text
    .normalize('NFKC')
    .replace(UNSEEN, '')
    .toUpperCase()
    .toLowerCase()
    .normalize('NFKC')
    .replace(/[\u2010-\u2015\u2212]/gu, '-')
    .replace(/[\u2018\u2019\u02BC]/gu, "'")
    .replace(/\s+/gu, ' ')
    .trim();
}

/** Two labels of the list that an answer cannot tell apart, or one label twice where it is blank. */
export function indistinctLabels(labels: readonly string[]): readonly [string, string] | undefined {
  const forms = new Map<string, string>();
  for (const label of labels) {
    const form = labelForm(label);
    const twin = form === '' ? label : forms.get(form);
    if (twin !== undefined) return [twin, label];
    forms.set(form, label);
  }
  return undefined;
}
