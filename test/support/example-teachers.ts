/** The words of a hosted teacher for each example campaign: whatever server speaks them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const CAMPAIGNS = join(import.meta.dirname, '..', '..', 'campaigns');

/** What a teacher sees of a call. */
export interface TeacherCall {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly response_format?: unknown;
}
/** `index` counts the calls that one server has answered or is to answer. */
export type ExampleTeacher = (call: TeacherCall, index: number) => string;

const asked = ({ messages }: TeacherCall): string => messages.at(-1)?.content ?? '';

/** The name of the schema that the answer is asked for by. */
export function schemaNameOf({ response_format: format }: TeacherCall): string | undefined {
  return (format as { readonly json_schema?: { readonly name?: string } } | undefined)?.json_schema?.name;
}

/** A label in the form in which it is asked for. */
const labelled = (call: TeacherCall, label: string): string => (schemaNameOf(call) === undefined ? label : JSON.stringify({ label }));

function rowsOf<T>(file: string): readonly T[] {
  return readFileSync(join(CAMPAIGNS, 'data', file), 'utf8').trim().split('\n').map((line) => JSON.parse(line) as T);
}
const goldOf = (file: string): ReadonlyMap<string, string> => new Map(rowsOf<{ readonly input: string; readonly gold: string }>(file).map(({ input, gold }) => [input, gold]));
const labelIn = (labels: ReadonlyMap<string, string>, text: string): string | undefined => [...labels].find(([input]) => text.includes(input))?.[1];

const chineseGold = goldOf('sentiment-zh.gold.jsonl');
const SUBJECTS = ['这家餐厅', '新买的手机', '昨天的电影', '客服的回复', '这本小说', '酒店的房间', '快递的包装', '周末的课程'];
const OPINIONS: readonly (readonly [string, string])[] = [
  ['让我非常满意，下次还会选择', '积极'], ['实在太差了，完全不值这个价', '消极'], ['于三月上线，共有四种规格可选', '中性'],
  ['比想象中好得多，强烈推荐给大家', '积极'], ['问题不断，打了三次电话也没人理', '消极'], ['位于二楼，营业时间是九点到六点', '中性'],
];

/** Pairs that differ from call to call, as a teacher's would. */
export function writeChinesePairs(call: number): string {
  const pairs = Array.from({ length: 6 }, (_, index) => {
    const [opinion, output] = OPINIONS[(call + index) % OPINIONS.length] as readonly [string, string];
    return { input: `${SUBJECTS[(call * 3 + index) % SUBJECTS.length] ?? ''}${opinion}${'。！～…'[(call + index) % 4] ?? ''}`, output };
  });
  return JSON.stringify({ pairs });
}

const CHINESE_ATTRIBUTES = { attributes: [{ name: 'topic', values: ['餐饮', '数码产品', '酒店'] }, { name: 'style', values: ['口语', '书面语'] }] };

/** sentiment-zh: plans attributes, writes pairs, and knows the gold labels. */
export const chineseTeacher: ExampleTeacher = (call, index) => {
  const schema = schemaNameOf(call);
  if (schema === 'attributes') return JSON.stringify(CHINESE_ATTRIBUTES);
  if (schema === 'training_pairs') return writeChinesePairs(index);
  return labelled(call, labelIn(chineseGold, asked(call)) ?? '中性');
};

/** code-assistant: every fourth call gets code that does not parse; the judge prefers what looks like its own code. */
export const codeTeacher: ExampleTeacher = (call, index) => {
  const task = asked(call);
  const schema = schemaNameOf(call);
  if (schema === 'comparison') {
    const [first, second] = task.split('<answer-B>').map((part) => part.includes('export const answer'));
    return JSON.stringify({ reasoning: 'Whichever compiles.', winner: first === second ? 'tie' : first === true ? 'A' : 'B' });
  }
  if (schema !== undefined) {
    const good = task.includes('export const answer');
    return JSON.stringify({ reasoning: good ? 'It compiles and answers the task.' : 'It does not compile.', score: good ? 9 : 2 });
  }
  const code = index % 4 === 1 ? 'export const answer = (((;' : `export const answer = (${task.length} as number).toString(${2 + (index % 30)});`;
  return `\`\`\`typescript\n${code}\n\`\`\`\nIt turns the length of the task into text.`;
};

const TEAMS = ['billing', 'bug', 'account', 'other'];
/** The pool goes through the teams in their order. */
const teams = new Map([...goldOf('tickets.gold.jsonl'), ...rowsOf<{ readonly input: string }>('tickets.jsonl').map(({ input }, index): [string, string] => [input, TEAMS[index % TEAMS.length] as string])]);
const TICKETS: Readonly<Record<string, readonly string[]>> = {
  billing: ['we paid twice for', 'please send a new invoice for', 'what would ten more seats cost with'],
  bug: ['a blank page is all that I get from', 'numbers are wrong since Tuesday in', 'it freezes whenever I open'],
  account: ['I cannot sign in any more to', 'take the access of a colleague away from', 'who may invite people to'],
  other: ['many thanks to whoever built', 'may I write a review about', 'will there be a talk about'],
};
const PRODUCTS = ['the mobile app', 'the weekly report', 'the data export', 'the shared calendar', 'the admin console', 'the public API', 'the photo library'];
const TICKET_ATTRIBUTES = { attributes: [{ name: 'product area', values: ['app', 'reports', 'calendar'] }, { name: 'tone', values: ['polite', 'angry'] }] };

/** ticket-routing: plans attributes, writes tickets with their reasons, and knows the teams. */
export const ticketTeacher: ExampleTeacher = (call, index) => {
  const schema = schemaNameOf(call);
  if (schema === 'attributes') return JSON.stringify(TICKET_ATTRIBUTES);
  if (schema === 'training_pairs') {
    const pairs = Array.from({ length: 8 }, (_, number) => {
      const output = TEAMS[number % TEAMS.length] as string;
      const said = TICKETS[output]?.[(index + (number >> 2)) % 3] ?? '';
      return { input: `Ticket ${index * 8 + number}: ${said} ${PRODUCTS[(index * 5 + number) % PRODUCTS.length] ?? ''}`, rationale: `It is for ${output}.`, output };
    });
    return JSON.stringify({ pairs });
  }
  const answer = labelIn(teams, asked(call)) ?? 'other';
  return JSON.stringify({ rationale: `The ticket is for ${answer}.`, answer });
};

/** review-sentiment: a review is good where it has a good word and no bad one. */
export const reviewTeacher: ExampleTeacher = (call) => {
  const text = asked(call).toLowerCase();
  const good = /good|great|best|love|well|excellent|easy|fun|nice|perfect|fine|happy/.test(text) && !/\b(not|no|never|n't|worst|bad|poor|dull)\b/.test(text);
  return labelled(call, good ? 'positive' : 'negative');
};
