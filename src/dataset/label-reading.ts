/** Which label a text names: alone, in JSON, in a box, after what announces it, or in a sentence that says so. */
import { findJson } from './json.ts';
import { labelIndexOf } from './label-index.ts';
import type { LabelIndex } from './label-index.ts';

/** How much a line says about the answer as a whole: the final answer, an answer, something else. */
type Rank = 3 | 2 | 1;
interface Named {
  readonly label: string;
  readonly rank: Rank;
}

const FINAL = /\b(?:final|finally|conclusion|therefore|overall)\b|最终|最終/i;
const ANNOUNCES = /\b(?:answer|label|class|category|classification|sentiment|prediction|result|output|verdict|choice|decision|response)\b|答案|标签|標籤|分类|分類|类别|類別|情感|结果|結果/i;
/** What is said about the answer, and not the answer: `Confidence: 1`. */
const ABOUT = /\b(?:confidence|probability|certainty|likelihood)\b/i;
const NEGATED = /\b(?:not|never|neither|nor|cannot|except|excluding|opposite|unlikely|wrong|incorrect)\b|n['’]t\b|不|没|沒|非/i;
const HEDGED = /\b(?:no|or|but|might|may|could|maybe|perhaps|possibly|either|unless|if|whether|rather|than|hardly|barely|doubt\w*|without|instead|versus|vs|some|ask\w*|sa(?:y|ys|id))\b|或|但|可能/i;
const OPENER = String.raw`(?:so|thus|therefore|hence|overall|finally|ok|okay|sure|in summary|in conclusion|based on [^,]+|i (?:think|believe)(?: that)?)[,:]?\s+`;
const SUBJECT = new RegExp(String.raw`^["'*_#>\s\-]*(?:${OPENER})*(?:the|this|that|my|its|it|i|we|i['’]d)\b|^\p{Script=Han}{1,12}$`, 'iu');
/** What ties a subject to its label. */
const TIE = /\b(?:is|was|would be|should be|as|it['’]s|(?:belongs|goes|routed|assigned) to)\s*:?\s+|[是为為]\s*[:：]?\s*/gi;
const ANNOUNCEMENT = /[:：=→]|\s[-–—]\s|->|=>/g;
/** Where a label may end and an explanation begin. */
const EXPLANATION = /[.;:!?)]\s+|[。；：！？]|\s*[（(]|\s+[-–—]\s+|,?\s+(?:because|since|as|with)\b/gi;
const TAKEN_BACK = /^[\s"'*_.,;:!?-]*(?:or|but|not|wait|actually|however|although|though|unless)\b/i;
const FENCE = /^(?:```|~~~)\S*$/;
const ANSWER_KEYS = new Set(['label', 'labels', 'answer', 'finalanswer', 'finallabel', 'class', 'category', 'classification', 'prediction', 'predictedlabel', 'result', 'output', 'choice', 'verdict', 'decision', 'response']);

/**
 * The label that a text names, or undefined. A text that is a label is that label. Around a label, quotes and markup,
 * JSON, `\boxed{}`, what announces it (`Label: …`, `Answer - …`), a sentence that states it (`The answer is …`) and an
 * explanation after it are read. A text that merely mentions a label (`not positive`), or names several, names none;
 * of several lines the final answer counts, then what is announced as the answer.
 */
export function labelOf(text: string, labels: readonly string[]): string | undefined {
  const index = labelIndexOf(labels);
  const whole = index.find(text);
  if (whole !== undefined) return whole;
  const found = /[{["]/.test(text) ? findJson(text) : { problem: 'none' };
  // What an object says is all that it says: its keys are no prose.
  if ('value' in found && typeof found.value === 'object' && found.value !== null && !Array.isArray(found.value)) return inValue(index, found.value, 0);
  return ('value' in found ? inValue(index, found.value, 0) : undefined) ?? inText(index, text);
}

const oneOf = (named: readonly (string | undefined)[]): string | undefined => {
  const distinct = new Set(named.filter((label) => label !== undefined));
  return distinct.size === 1 ? [...distinct][0] : undefined;
};

const inText = (index: LabelIndex, text: string): string | undefined => inBox(index, text) ?? inLines(index, text);

/** Of an object the keys that an answer has; without any the only entry, or the only text that is a label. */
function inValue(index: LabelIndex, value: unknown, depth: number): string | undefined {
  if (typeof value === 'string') return index.find(value) ?? inText(index, value);
  if (typeof value === 'number' || typeof value === 'boolean') return index.find(String(value));
  if (typeof value !== 'object' || value === null || depth > 2) return undefined;
  if (Array.isArray(value)) return value.length === 1 ? inValue(index, value[0], depth + 1) : undefined;
  const entries = Object.entries(value);
  const answers = entries.filter(([key]) => ANSWER_KEYS.has(key.toLowerCase().replace(/[\s_-]/g, '')));
  if (answers.length > 0 || entries.length === 1) return oneOf((answers.length > 0 ? answers : entries).map(([, inner]) => inValue(index, inner, depth + 1)));
  return oneOf(entries.map(([, inner]) => (typeof inner === 'string' ? index.find(inner) : undefined)));
}

/** `\boxed{B}` of LaTeX or an element such as `<answer>B</answer>`; of several the last. */
function inBox(index: LabelIndex, text: string): string | undefined {
  const boxed = [...text.matchAll(/\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}/g)].at(-1)?.[1];
  if (boxed !== undefined) return index.find(boxed.replace(/\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}/g, '$1'));
  const element = [...text.matchAll(/<([a-z][\w-]*)>([^<>]*)<\/\1>/gi)].at(-1);
  return element === undefined ? undefined : index.find(element[2] as string);
}

function inLines(index: LabelIndex, text: string): string | undefined {
  const lines: string[] = [];
  for (const line of text.split(/[\r\n\u2028\u2029]+/).map((each) => each.trim())) {
    if (line === '' || FENCE.test(line)) continue;
    // What a line announces may stand on the next one, where that begins no list.
    if (/[:：][*_]*$/.test(lines.at(-1) ?? '') && !/^(?:[-+*•]|\d+[.)])\s/.test(line)) lines.push(`${lines.pop()} ${line}`);
    else lines.push(line);
  }
  const named = lines.flatMap((line) => inLine(index, line) ?? []);
  const rank = Math.max(...named.map((each) => each.rank));
  return oneOf(named.filter((each) => each.rank === rank).map(({ label }) => label));
}

function inLine(index: LabelIndex, line: string): Named | undefined {
  const whole = index.find(line);
  if (whole !== undefined) return { label: whole, rank: 2 };
  const stated = announced(index, line) ?? inSentence(index, line);
  if (stated !== undefined) return stated;
  const first = beforeExplanation(index, line);
  return first === undefined ? undefined : { label: first, rank: 2 };
}

/** `Label: positive`. The longest text after a sign that is a label, since a label may hold such signs itself. */
function announced(index: LabelIndex, line: string): Named | undefined {
  let before = 0;
  for (const sign of line.matchAll(ANNOUNCEMENT)) {
    const head = line.slice(0, sign.index);
    const part = line.slice(before, sign.index);
    const rest = line.slice(sign.index + sign[0].length);
    before = sign.index + sign[0].length;
    const label = index.find(rest) ?? beforeExplanation(index, rest);
    // After a label comes an explanation, or another label.
    if (label === undefined || head.trim() === '' || index.find(part) !== undefined) continue;
    const clause = lastClause(head);
    if (NEGATED.test(clause) || ABOUT.test(clause)) return undefined;
    return { label, rank: rankOf(clause) };
  }
  return undefined;
}

/** What was said before the sentence that names the label does not count. */
const lastClause = (head: string): string => head.split(/[.!?;]\s+|[。！？；]/).at(-1) as string;
const rankOf = (clause: string): Rank => (FINAL.test(clause) ? 3 : ANNOUNCES.test(clause) ? 2 : 1);

/** `The answer is positive.` */
function inSentence(index: LabelIndex, line: string): Named | undefined {
  for (const tie of line.matchAll(TIE)) {
    const head = lastClause(line.slice(0, tie.index));
    const rest = line.slice(tie.index + tie[0].length);
    const label = index.find(rest) ?? beforeExplanation(index, rest);
    if (label === undefined) continue;
    if (!SUBJECT.test(`${head}${tie[0]}`) && !SUBJECT.test(head)) continue;
    if (NEGATED.test(head) || HEDGED.test(head) || ABOUT.test(head) || index.mentionsOther(head, label)) continue;
    return { label, rank: rankOf(head) };
  }
  return undefined;
}

/** `negative: the battery died`. An explanation that names another label, or takes back what was said, leaves none. */
function beforeExplanation(index: LabelIndex, text: string): string | undefined {
  for (const end of text.matchAll(EXPLANATION)) {
    if (end.index > index.longest) return undefined;
    const label = index.find(text.slice(0, end.index));
    if (label === undefined) continue;
    const explanation = text.slice(end.index + end[0].length);
    return TAKEN_BACK.test(explanation) || index.mentionsOther(explanation, label) ? undefined : label;
  }
  return undefined;
}
