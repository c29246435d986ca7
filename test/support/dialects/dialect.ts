/** What a dialect is: how one server behaves behind the OpenAI chat route, as data in which every behaviour names its source. */
import { z } from 'zod';

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
const jsonSchema: z.ZodType<Json> = z.json() as z.ZodType<Json>;

/** A public page, issue, or file of a published package (`name@version:path`) that states the behaviour, with its words where they are short. */
const sourceSchema = z.strictObject({ at: z.string().regex(/^(https:\/\/\S+|[\w@/.-]+@[\w.-]+:\S+)$/, 'an https address, or package@version:file'), quote: z.string().min(1).optional() });
const sourcesSchema = z.array(sourceSchema).min(1).readonly();

/** Things that a question can be about, by a marker in its last message: what a real model would find out by reading it. */
export const SUBJECTS = { filter: '[[forbidden]]', outage: '[[outage]]' } as const;

/** All that is given must hold. A path is of the body: `response_format.type`. */
const conditionShape = {
  /** Present and not null. */
  has: z.string().optional(),
  lacks: z.string().optional(),
  /** Has one of these values. */
  is: z.strictObject({ path: z.string(), values: z.array(jsonSchema).min(1).readonly() }).optional(),
  /** Present, with another value than these. */
  isNot: z.strictObject({ path: z.string(), values: z.array(jsonSchema).min(1).readonly() }).optional(),
  above: z.strictObject({ path: z.string(), than: z.number() }).optional(),
  /** A message has this role. */
  role: z.string().optional(),
  /** A message after the first has this role. */
  laterRole: z.string().optional(),
  /** A key anywhere in the schema of response_format. */
  schemaKeyword: z.string().optional(),
  /** The word is in no message, in any case of letters. */
  wordMissing: z.string().optional(),
  /** The body has a key that is none of these. */
  keyOutside: z.array(z.string()).readonly().optional(),
  promptTokensAbove: z.number().optional(),
  /** The prompt and what may be written, together. */
  totalTokensAbove: z.number().optional(),
  about: z.enum(['filter', 'outage']).optional(),
};
const conditionSchema = z.strictObject({ ...conditionShape, unless: z.strictObject(conditionShape).optional() });
export type Condition = z.output<typeof conditionSchema>;

/** Texts in a body may hold {{path of the request's body}} or {{$name}}: see template.ts. */
const replySchema = z.strictObject({
  status: z.int().min(200).max(599),
  contentType: z.string().default('application/json'),
  headers: z.record(z.string(), z.string()).default({}),
  body: jsonSchema,
});
export type Reply = z.output<typeof replySchema>;

const ruleSchema = z.strictObject({
  name: z.string().min(1),
  when: conditionSchema,
  /** Holds for so many calls of each question, and then no more: an outage that passes. */
  calls: z.int().min(1).optional(),
  /** Answered with this instead. */
  reply: replySchema.optional(),
  /** Answered as ever, but so: as filters do that let a part pass. */
  alter: z.strictObject({ finish: z.string().nullable().optional(), content: z.string().nullable().optional(), choice: z.record(z.string(), jsonSchema).optional(), message: z.record(z.string(), jsonSchema).optional(), top: z.record(z.string(), jsonSchema).optional() }).optional(),
  sources: sourcesSchema,
});
export type Rule = z.output<typeof ruleSchema>;

const reasoningSchema = z.strictObject({
  /** Nothing of it is shown; a field of the message; before the answer as <think>…</think>; the same without the opening tag, which the template had written; a part of the content. */
  place: z.enum(['hidden', 'reasoning_content', 'reasoning', 'think', 'think-without-opening', 'part']),
  /** So many tokens, before anything of the answer; counted against the limit. */
  tokens: z.int().min(1),
  /** Where it does not reason. */
  unless: conditionSchema.optional(),
  /** usage.completion_tokens_details.reasoning_tokens. */
  counted: z.boolean().default(false),
  /** Whether completion_tokens holds them, or they are billed beside it. */
  inCompletionTokens: z.boolean().default(true),
  sources: sourcesSchema,
});

const answerSchema = z.strictObject({
  contentType: z.string().default('application/json'),
  /** Sent before the document, as what keeps a connection alive. */
  before: z.string().default(''),
  /** `event-stream`: as one, though none was asked for. */
  form: z.enum(['json', 'event-stream']).default('json'),
  content: z.enum(['text', 'parts']).default('text'),
  reasoning: reasoningSchema.optional(),
  finish: z.strictObject({ stop: z.string().nullable(), length: z.string().nullable() }).default({ stop: 'stop', length: 'length' }),
  usage: z.enum(['full', 'missing', 'null', 'empty', 'without-completion']).default('full'),
  /** It takes no response_format: JSON comes between fences, after a sentence. */
  fencesJson: z.boolean().default(false),
  /** Further fields of usage. */
  usageExtra: z.record(z.string(), jsonSchema).default({}),
  logprobs: z.strictObject({
    /** `openai`: for every token, with bytes. `without-bytes`: bytes null. `null`: taken and not given. `absent`: the field is not there. `empty`: an empty list. */
    shape: z.enum(['openai', 'without-bytes', 'null', 'absent', 'empty']),
    /** Gives no more alternatives, however many are asked for. */
    most: z.int().min(0).optional(),
    /** Gives those of every token that was generated, its reasoning with the tags around it too. */
    ofReasoning: z.boolean().default(false),
    sources: sourcesSchema,
  }),
  /** How the answer names the model. Default: as asked. */
  model: z.string().optional(),
  /** Without a limit in the request it writes no more than this. */
  defaultMaxTokens: z.int().min(1).default(4_096),
  /** Further fields of the document, its choice and its message. */
  top: z.record(z.string(), jsonSchema).default({}),
  choice: z.record(z.string(), jsonSchema).default({}),
  message: z.record(z.string(), jsonSchema).default({}),
  sources: sourcesSchema,
});

/** What a refusal of every call means to whoever asks. */
const MEANINGS = ['quota', 'unauthorized', 'not-found', 'rate-limited', 'unavailable', 'length', 'filter'] as const;
export const failureSchema = z.strictObject({ name: z.string().min(1), means: z.enum(MEANINGS), reply: replySchema, /** The wait in milliseconds that it names. */ waitMs: z.number().optional(), sources: sourcesSchema });
export type Failure = z.output<typeof failureSchema>;

export const dialectSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9.-]*$/),
  model: z.string().min(1),
  /** Before /chat/completions. */
  basePath: z.string().regex(/^(\/.*)?$/),
  /** Where the key goes. `none`: anyone may call. */
  auth: z.enum(['bearer', 'api-key', 'none']).default('bearer'),
  /** Query parameters without which there is no such path. */
  query: z.record(z.string(), z.string()).default({}),
  /** Parameters of its own beside those of the OpenAI reference. */
  parameters: z.array(z.string()).readonly().default([]),
  /** In order: the first that holds answers. */
  rules: z.array(ruleSchema).readonly(),
  answer: answerSchema,
  /** By what they mean: wrong keys, unknown models, spent money … `unauthorized` and `not-found` are also what a wrong key and model get. */
  failures: z.array(failureSchema).readonly().default([]),
  /** What the table of cells can expect of it. */
  can: z.strictObject({ softTargets: z.boolean(), filter: z.enum(['rejected', 'answered', 'none']), length: z.enum(['rejected', 'none']) }),
});
export type Dialect = z.output<typeof dialectSchema>;

export const dialect = (given: z.input<typeof dialectSchema>): Dialect => dialectSchema.parse(given);
export type DialectInput = z.input<typeof dialectSchema>;
export type { Json };
