/**
 * `npm run bench -- train [--json] [--pairs N] [--case NAME]`: our LoRA training beside PyTorch + PEFT on the same
 * weights, initial adapter, rows, order and threads.
 */
import { benchTraining, blocks, chats, MODEL } from './peers/training.ts';

const FIXED = { batchSize: 4, padTo: 0, samples: (count: number) => blocks(count, 128) } as const;

await benchTraining('train', [
  { name: 'fixed-4x128', model: MODEL, beside: 'pytorch', warmUpSteps: 2, stepsPerTurn: 3, ...FIXED },
  { name: 'textbook-4x128', model: MODEL, beside: 'pytorch', dropout: 0.05, warmUpSteps: 2, stepsPerTurn: 3, ...FIXED },
  { name: 'chats-padded-to-longest', model: MODEL, beside: 'pytorch', batchSize: 8, padTo: 0, warmUpSteps: 3, stepsPerTurn: 4, samples: chats },
  { name: 'chats-padded-to-512', model: MODEL, beside: 'pytorch', batchSize: 8, padTo: 512, warmUpSteps: 1, stepsPerTurn: 1, samples: chats },
  { name: 'vocabulary-152k-4x128', model: 'qwen2.5-0.5b', beside: 'pytorch', warmUpSteps: 1, stepsPerTurn: 1, ...FIXED },
  { name: 'vocabulary-152k-chats', model: 'qwen2.5-0.5b', beside: 'pytorch', batchSize: 8, padTo: 0, warmUpSteps: 1, stepsPerTurn: 1, samples: chats },
  { name: '1.5b-4x128', model: 'qwen2.5-1.5b', beside: 'nothing', warmUpSteps: 1, stepsPerTurn: 1, ...FIXED },
]);
