/** Reasoning that a model wrote into its answer, told from the answer itself. */

/**
 * Opening and closing marks, as chat templates write them: DeepSeek-R1, Qwen 3 and most others; Magistral;
 * Kimi; Seed-OSS; Sky-T1 and OpenThinker; the raw channels of gpt-oss.
 */
const BLOCKS: readonly (readonly [open: RegExp, close: RegExp])[] = [
  [/<(?:think|thinking|thought|reasoning|seed:think)>/gi, /<\/(?:think|thinking|thought|reasoning|seed:think)>/gi],
  [/\[THINK\]/g, /\[\/THINK\]/g],
  [/◁think▷/g, /◁\/think▷/g],
  [/<\|begin_of_thought\|>/g, /<\|end_of_thought\|>/g],
  [/<\|channel\|>(?:analysis|commentary)<\|message\|>/g, /(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|<\|end\|>/g],
];
/** What stands around the answer itself where reasoning stands before it. */
const WRAPPERS = /^(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>|^<\|begin_of_solution\|>|<\|end_of_solution\|>\s*$|<\|(?:return|end)\|>\s*$/g;

export interface SplitText {
  /** The answer alone, as it was written; trimmed where something was taken off. */
  readonly text: string;
  /** What was taken off, without its marks. Absent: there was none. */
  readonly reasoning?: string;
}

/** A mark inside of code or quotes is part of what is said. */
const isQuoted = (text: string, at: number): boolean => /[`"'“]/.test(text[at - 1] ?? '') || (text.slice(0, at).match(/^```/gm)?.length ?? 0) % 2 === 1;

interface Mark {
  readonly start: number;
  readonly end: number;
}

/** The first mark from `from`; with `unquoted` the first that stands for itself. */
function find(text: string, mark: RegExp, from: number, unquoted: boolean): Mark | undefined {
  mark.lastIndex = from;
  for (let found = mark.exec(text); found !== null; found = mark.exec(text)) {
    if (!unquoted || !isQuoted(text, found.index)) return { start: found.index, end: found.index + found[0].length };
  }
  return undefined;
}

/**
 * Takes off blocks of reasoning: at the beginning of a text and of any of its lines, also one that is never
 * closed (the answer was cut off inside of it), and everything before a closing mark that nothing opened, as
 * where the opening one is part of the prompt. Text without marks comes back as it is.
 */
export function splitReasoning(text: string): SplitText {
  let rest = text;
  const taken: string[] = [];
  for (const [open, close] of BLOCKS) {
    // A text without an opening mark has none after something was taken off: it is not searched again.
    let opened = find(rest, open, 0, true);
    for (;; opened &&= find(rest, open, 0, true)) {
      const closed = find(rest, close, 0, true);
      if (closed !== undefined && (opened === undefined || closed.start < opened.start)) {
        taken.push(rest.slice(0, closed.start));
        rest = rest.slice(closed.end);
        continue;
      }
      if (opened === undefined || !/(?:^|\n)[^\S\n]*$/.test(rest.slice(0, opened.start))) break;
      // Reasoning quotes and leaves fences open as it likes.
      const end = find(rest, close, opened.end, false);
      taken.push(rest.slice(opened.end, end?.start));
      rest = rest.slice(0, opened.start) + (end === undefined ? '' : rest.slice(end.end));
    }
  }
  const bare = rest.replace(WRAPPERS, '');
  if (taken.length === 0) return bare === rest ? { text } : { text: bare.trim() };
  const reasoning = taken.map((each) => each.trim()).filter((each) => each !== '').join('\n\n');
  return { text: bare.trim(), ...(reasoning === '' ? {} : { reasoning }) };
}
