/** What a model says of given texts: the probability of each token, the most probable ones beside it, hidden states. */
import { StillhouseError } from '../contracts/errors.ts';
import type { Engine } from './engine.ts';
import type { Prompt, TextScores, TextScoringRequest } from './model.ts';
import type { ChatTokenizer } from './tokenizer.ts';

/** Tokens of one run. Their logits are held at once: 64 rows of a vocabulary of 150,000 are 38 MB. */
const RUN_TOKENS = 64;

/** The `ids.length` largest of `logits` (V), in falling order; of equals the first. */
function largest(logits: Float32Array, ids: Int32Array, values: Float32Array): void {
  const last = ids.length - 1;
  values.fill(-Infinity);
  for (let id = 0; id < logits.length; id += 1) {
    const logit = logits[id] as number;
    if (logit <= (values[last] as number)) continue;
    let at = last;
    for (; at > 0 && logit > (values[at - 1] as number); at -= 1) {
      values[at] = values[at - 1] as number;
      ids[at] = ids[at - 1] as number;
    }
    values[at] = logit;
    ids[at] = id;
  }
}

/** Tables of one text that fill from run to run. */
interface Tables {
  readonly logProbs: Float32Array; // (T − 1)
  readonly topIds: Int32Array; // (T, k)
  readonly topLogProbs: Float32Array; // (T, k)
  readonly hidden: readonly Float32Array[]; // (T, H) each
}

function encodeText(tokenizer: ChatTokenizer, text: Prompt): number[] {
  return 'messages' in text ? tokenizer.encodeChat(text.messages, { openAssistantTurn: text.messages.at(-1)?.role !== 'assistant' }) : tokenizer.encode(text.text, { begin: true });
}

async function scoreText(engine: Engine, tokens: readonly number[], top: number, layers: readonly number[]): Promise<TextScores> {
  const { vocabularySize: V, hiddenSize: H } = engine.config;
  const T = tokens.length;
  const tables: Tables = {
    logProbs: new Float32Array(T - 1),
    topIds: new Int32Array(T * top),
    topLogProbs: new Float32Array(T * top),
    hidden: layers.map(() => new Float32Array(T * H)),
  };
  const cache = engine.createCache();
  for (let from = 0; from < T; from += RUN_TOKENS) {
    const ids = tokens.slice(from, from + RUN_TOKENS);
    const rows = Array.from(ids.keys());
    // The token after each; after the last any, to learn its normaliser.
    const nextIds = rows.map((t) => tokens[from + t + 1] ?? 0);
    const run = { batch: 1, tokens: ids.length, ids: BigInt64Array.from(ids, BigInt), cache, logitRows: rows, targets: { rows, ids: nextIds } };
    const { logits, targetLogProbs, hidden } = await engine.run(run, { keep: true, logits: top > 0, hidden: layers });
    tables.logProbs.set(targetLogProbs.subarray(0, Math.min(ids.length, T - 1 - from)), from);
    hidden.forEach((states, i) => tables.hidden[i]?.set(states, from * H));
    for (const t of top > 0 ? rows : []) {
      const row = logits.subarray(t * V, (t + 1) * V);
      const [start, end] = [(from + t) * top, (from + t + 1) * top];
      const values = tables.topLogProbs.subarray(start, end);
      largest(row, tables.topIds.subarray(start, end), values);
      const next = nextIds[t] as number;
      const logSumExp = (row[next] as number) - (targetLogProbs[t] as number);
      values.forEach((logit, i) => (values[i] = logit - logSumExp));
    }
  }
  return {
    tokens,
    logProbs: tables.logProbs,
    ...(top === 0 ? {} : { top: { count: top, ids: tables.topIds, logProbs: tables.topLogProbs } }),
    ...(layers.length === 0 ? {} : { hidden: tables.hidden }),
  };
}

export async function scoreTexts(engine: Engine, tokenizer: ChatTokenizer, request: TextScoringRequest): Promise<readonly TextScores[]> {
  const { top = 0, hiddenLayers = [] } = request;
  const { vocabularySize, layers } = engine.config;
  if (!Number.isInteger(top) || top < 0 || top > vocabularySize) throw new StillhouseError('BAD_INPUT', `top: expected 0 to ${vocabularySize}, got ${top}`);
  const unknown = hiddenLayers.find((layer) => !Number.isInteger(layer) || layer < 0 || layer > layers);
  if (unknown !== undefined) throw new StillhouseError('BAD_INPUT', `hiddenLayers: expected layers from 0 to ${layers}, got ${unknown}`);
  const encoded = request.texts.map((text) => encodeText(tokenizer, text));
  encoded.forEach((tokens, index) => {
    if (tokens.length === 0 || tokens.length > engine.contextTokens) throw new StillhouseError('BAD_INPUT', `texts[${index}]: expected 1 to ${engine.contextTokens} tokens, got ${tokens.length}`);
  });
  const scores: TextScores[] = [];
  for (const tokens of encoded) scores.push(await scoreText(engine, tokens, top, hiddenLayers));
  return scores;
}
