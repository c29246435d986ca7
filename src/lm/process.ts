/**
 * The process that holds one model. A run of the native runtime stops the event loop it was called
 * from, so models never live in the process that heartbeats or serves. Ends when its parent is gone.
 */
import { StillhouseError } from '../contracts/errors.ts';
import { readAdapter } from './adapter.ts';
import type { WeightFile } from './config.ts';
import { createEngine, type Engine } from './engine.ts';
import { generate } from './generation.ts';
import { loadModel } from './load.ts';
import { scoreTexts } from './log-probs.ts';
import { toWireError, type AnswerMessage, type CallMessage, type OpenRequest, type PieceMessage } from './protocol.ts';
import { PrefixCache, scoreLabels } from './scoring.ts';
import type { ChatTokenizer } from './tokenizer.ts';
import type { ModelIdentity } from './model.ts';

interface Opened {
  readonly identity: ModelIdentity;
  readonly engine: Engine;
  readonly tokenizer: ChatTokenizer;
  readonly prefixes: PrefixCache;
}

let opened: Opened | undefined;

const weightBytes = ({ tensors }: WeightFile): number => [...tensors.values()].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);

async function open(request: OpenRequest): Promise<ModelIdentity> {
  const { identity: base, config, weights: baseWeights, tokenizer } = await loadModel(request);
  const weights = request.weights ?? baseWeights;
  const identity = request.weights === undefined ? base : { ...base, sizeBytes: weightBytes(request.weights) };
  const adapter = request.adapterPath === undefined ? {} : { adapter: readAdapter(request.adapterPath) };
  const { threads, executionProviders, precision } = request;
  const engine = await createEngine({ config, weights, threads, ...adapter, ...(executionProviders === undefined ? {} : { executionProviders }), ...(precision === undefined ? {} : { precision }) });
  opened = { identity, engine, tokenizer, prefixes: new PrefixCache() };
  return identity;
}

async function answer(message: CallMessage): Promise<Extract<AnswerMessage, { result: unknown }>['result']> {
  if (message.call === 'open') return open(message.input);
  if (opened === undefined) throw new StillhouseError('INTERNAL', `model process: expected open before ${message.call}`);
  const { engine, tokenizer, prefixes } = opened;
  switch (message.call) {
    case 'scoreLabels':
      return scoreLabels(engine, tokenizer, prefixes, message.input);
    case 'scoreTexts':
      return scoreTexts(engine, tokenizer, message.input);
    case 'generate':
      return generate(engine, tokenizer, message.input, message.input.stream ? (index, piece) => reply({ id: message.id, index, piece }) : undefined);
    case 'tokenTexts':
      return message.input.map((id) => tokenizer.tokenText(id));
    case 'countTokens':
      return message.input.map((text) => tokenizer.encode(text).length);
  }
}

function reply(message: AnswerMessage | PieceMessage): void {
  process.send?.(message, undefined, undefined, (error) => {
    // The parent went away while the answer was on its way.
    if (error !== null) process.exit(0);
  });
}

/** One call after another: two runs at once would only share the same cores. */
let queue: Promise<void> = Promise.resolve();

process.on('disconnect', () => process.exit(0));
// A terminal's interrupt reaches the whole group; the parent decides when this process ends.
process.on('SIGINT', () => undefined);
process.on('message', (message: CallMessage) => {
  queue = queue.then(async () => {
    try {
      reply({ id: message.id, result: await answer(message) });
    } catch (error) {
      reply({ id: message.id, error: toWireError(error) });
    }
  });
});
