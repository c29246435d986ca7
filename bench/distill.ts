/**
 * `npm run bench -- distill [--json] [--pairs N] [--case NAME]`: logit distillation by the textbook's formula,
 * alpha·T²·KL + (1 − alpha)·CE with T 2 and alpha 0.5, beside a plain PyTorch loop of it: the same teacher, student (layers of
 * the teacher with LoRA), rows and threads. In the cases `stored` our student reads
 * the teacher's 50 likeliest tokens from a file that was made before. The last three are ours alone beside our own training on
 * the text: what the teacher's distribution costs in memory where the vocabulary is large.
 */
import { benchTraining, blocks, chats, MODEL } from './peers/training.ts';

const LOGIT = { divergence: 'forward-kl', temperature: 2, alpha: 0.5, targets: 'online' } as const;
const STORED = { ...LOGIT, targets: 'offline', topK: 50 } as const;
const LARGE = { model: 'qwen2.5-0.5b', studentLayers: 24, beside: 'sft', warmUpSteps: 1, stepsPerTurn: 1 } as const;
const FIXED = { logit: LOGIT, batchSize: 4, padTo: 0, samples: (count: number) => blocks(count, 128) } as const;

await benchTraining('distill', [
  { name: 'fixed-4x128', model: MODEL, studentLayers: 15, beside: 'pytorch', warmUpSteps: 2, stepsPerTurn: 3, ...FIXED },
  { name: 'chats-padded-to-longest', model: MODEL, studentLayers: 15, beside: 'pytorch', logit: LOGIT, batchSize: 8, padTo: 0, warmUpSteps: 3, stepsPerTurn: 4, samples: chats },
  { name: 'stored-4x128', model: MODEL, studentLayers: 15, beside: 'pytorch', warmUpSteps: 2, stepsPerTurn: 3, ...FIXED, logit: STORED },
  { name: 'vocabulary-152k-4x128', ...LARGE, ...FIXED },
  { name: 'vocabulary-152k-read-before-4x128', ...LARGE, ...FIXED, teacherReads: 'before' },
  { name: 'vocabulary-152k-stored-4x128', ...LARGE, ...FIXED, logit: { ...STORED, minMass: 0 } },
]);
