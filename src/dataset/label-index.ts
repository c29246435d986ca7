/** The labels of a task, prepared so that a text is found among thousands of them at once. */
import { labelForm } from '../contracts/label-form.ts';

/** The longest a label's text may get by quotes and markup around it. */
const MARKUP_CHARACTERS = 24;
const PAIRS: Readonly<Record<string, string>> = { '"': '"', "'": "'", '`': '`', '*': '*', '_': '_', $: '$', '“': '”', '‘': '’', '„': '“', '«': '»', '「': '」', '『': '』', '《': '》', '(': ')', '（': '）', '[': ']', '{': '}', '<': '>', '【': '】' };
const CLOSING_PUNCTUATION = /[.,;:!?。，；：！？、…]$/u;
const MARKUP_AT_END = /["'`*_“”‘’「」『』《》«»]$/u;
/** A bullet, a heading or a quotation mark of Markdown; a dash before a number may be its sign. */
const MARKUP_AT_START = /^(?:["'`*_“”‘’„「」『』《》«»]|[#>*•·–—-]+\s+(?!\d))/u;

export class LabelIndex {
  /** Characters of the longest text that can be a label alone. */
  readonly longest: number;
  readonly #exact = new Map<string, string>();
  readonly #forms: Map<string, string | undefined>;
  readonly #looseForms: Map<string, string | undefined>;
  /** The longest first. */
  readonly #byLength: readonly { readonly label: string; readonly form: string }[];

  constructor(labels: readonly string[]) {
    for (const label of labels) this.#exact.set(label.trim(), label);
    this.#forms = uniqueBy(labels, labelForm);
    this.#looseForms = uniqueBy(labels, looseForm);
    this.#byLength = labels.map((label) => ({ label, form: labelForm(label) })).filter(({ form }) => form !== '').sort((a, b) => b.form.length - a.form.length);
    this.longest = labels.reduce((most, label) => Math.max(most, label.length), 0) + MARKUP_CHARACTERS;
  }

  /**
   * The label that a text is, and nothing else: as it stands, then in another case or width, then the same without
   * the quotes, markup and closing punctuation around it, a layer at a time, and at last without any sign around
   * words where that still means one label alone.
   */
  find(text: string): string | undefined {
    let bare = text.trim();
    if (bare === '' || bare.length > this.longest) return undefined;
    for (let before = ''; before !== bare; ) {
      const label = this.#exact.get(bare) ?? this.#forms.get(labelForm(bare));
      if (label !== undefined) return label;
      before = bare;
      bare = withoutLayer(bare);
    }
    return this.#looseForms.get(looseForm(text));
  }

  /** Whether a text has a label other than `own` in it as words. Of labels inside of each other the longest counts. */
  mentionsOther(text: string, own: string): boolean {
    let rest = labelForm(text);
    for (const { label, form } of this.#byLength) {
      for (let at = rest.indexOf(form); at >= 0; at = rest.indexOf(form, at + 1)) {
        if (!standsAlone(rest, at, form)) continue;
        if (label !== own) return true;
        rest = `${rest.slice(0, at)}${' '.repeat(form.length)}${rest.slice(at + form.length)}`;
      }
    }
    return false;
  }
}

const indexes = new WeakMap<readonly string[], LabelIndex>();

/** The index of a list of labels, made once for each list. */
export function labelIndexOf(labels: readonly string[]): LabelIndex {
  let index = indexes.get(labels);
  if (index === undefined) {
    index = new LabelIndex(labels);
    indexes.set(labels, index);
  }
  return index;
}

/** Labels by a form of theirs; undefined stands for a form that several labels have. */
function uniqueBy(labels: readonly string[], formOf: (label: string) => string): Map<string, string | undefined> {
  const found = new Map<string, string | undefined>();
  for (const label of new Set(labels)) {
    const form = formOf(label);
    found.set(form, found.has(form) ? undefined : label);
  }
  found.delete('');
  return found;
}

function withoutLayer(text: string): string {
  const last = text.at(-1) as string;
  if (text.length > 1 && PAIRS[text[0] as string] === last) return text.slice(1, -1).trim();
  if (CLOSING_PUNCTUATION.test(text) || MARKUP_AT_END.test(text)) return text.slice(0, -1).trim();
  return text.replace(MARKUP_AT_START, '').trim();
}

/** Without signs at its ends, a word's parts set apart by spaces. A sign or point before a number is a part of the number. */
function looseForm(text: string): string {
  const form = labelForm(text);
  const start = /^[\s"'`*_#.>•·(){}[\]“”„「」『』《》«»-]*/u.exec(form)?.[0].length ?? 0;
  const signed = /\d/.test(form[start] ?? '') && /[-.]\s*$/.test(form.slice(0, start));
  const rest = signed ? form.slice(form.slice(0, start).search(/[-.]\s*$/)) : form.slice(start);
  return rest.replace(/[\s"'`*_.,;:!?(){}[\]“”「」『』《》«»。，；：！？、…]+$/u, '').replace(/(?<=[\p{L}\p{N}])[\s_-]+(?=[\p{L}\p{N}])/gu, ' ');
}

/** Scripts that put no space between words. */
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const WORD = /[\p{L}\p{N}\p{M}]/u;
const joins = (inner: string | undefined, outer: string | undefined): boolean => inner !== undefined && outer !== undefined && WORD.test(inner) && WORD.test(outer) && !UNSPACED.test(inner);

const standsAlone = (text: string, at: number, form: string): boolean => !joins(form[0], text[at - 1]) && !joins(form.at(-1), text[at + form.length]);
