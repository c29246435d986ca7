/** Our training of one epoch, in turns (turns.ts): argv = a file of TrainingTask. */
import { readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { readConfig } from '../../src/config.ts';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import { keepLayersOf, keepTensors } from '../../src/lm/layers.ts';
import { loadModel } from '../../src/lm/load.ts';
import { trainEpoch } from '../../src/training/epoch.ts';
import type { EpochInput } from '../../src/training/epoch.ts';
import { makeSoftTargets } from '../../src/training/soft-targets/make.ts';
import { DEFAULT_TOP_K } from '../../src/training/soft-targets/stored.ts';
import { makeTeacherRows } from '../../src/training/teacher-rows.ts';
import { forgetPeak, peakSince } from './memory.ts';
import { openRandomModel } from './random-model.ts';
import type { TrainingTask } from './turns.ts';

const task = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as TrainingTask;
const whole = statSync(task.modelPath).isDirectory() ? openRandomModel(task.modelPath) : await loadModel({ path: task.modelPath, cache: readConfig().cache });
const student = { config: keepLayersOf(whole.config, task.layers), weights: { ...whole.weights, tensors: keepTensors(whole.weights.tensors, task.layers) } };
const training = campaignSpecSchema.shape.training.parse(task.training);

/** What of the teacher is there before the first turn, as a run makes it before its first epoch; else the teacher reads each batch. */
async function taught(): Promise<Partial<Pick<EpochInput, 'targets' | 'teacher'>>> {
  if (training.logit === undefined) return {};
  const teacher = { ...whole, sha256: '' };
  const job = { teacher, samples: task.samples, maxRowTokens: Math.max(training.rowTokens, training.maxTokens), folder: dirname(process.argv[2] ?? ''), threads: task.threads };
  const silent = (): void => undefined;
  if (training.logit.targets === 'offline') {
    return { targets: await makeSoftTargets({ ...job, vocabulary: { name: 'teacher', tokens: [] }, vocabularySize: whole.config.vocabularySize, k: training.logit.topK ?? DEFAULT_TOP_K }, silent) };
  }
  return { teacher, ...(task.teacherReads === 'before' ? { targets: await makeTeacherRows(job, silent) } : {}) };
}

/** Waits for the next turn, in the middle of the epoch: 0 at the end of the input. */
function nextTurn(): number {
  const buffer = Buffer.alloc(64);
  return Number(buffer.toString('utf8', 0, readSync(0, buffer)).trim());
}

const teaching = await taught();
const loading = forgetPeak();
let left = nextTurn();
let startedMs = performance.now();
let used = process.cpuUsage();
let lossNats: number[] = [];
let computedTokens = 0;
await trainEpoch(
  { ...student, ...teaching, modelSha256: '', datasetSha256: '', samples: task.samples, training, seed: task.seed, epoch: 0, threads: task.threads },
  {
    shouldStop: () => left === 0,
    afterStep({ point }) {
      lossNats.push(point.lossNats);
      computedTokens += point.tokens;
      left -= 1;
      if (left > 0) return;
      const { user, system } = process.cpuUsage(used);
      const turn = { seconds: (performance.now() - startedMs) / 1_000, processorSeconds: (user + system) / 1e6, lossNats, computedTokens, loadingPeakRssBytes: loading, peakRssBytes: peakSince() };
      writeSync(1, `${JSON.stringify(turn)}\n`);
      left = nextTurn();
      [startedMs, used, lossNats, computedTokens] = [performance.now(), process.cpuUsage(), [], 0];
    },
  },
);
