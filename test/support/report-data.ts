/** The input of a report for a campaign of realistic size, its artifacts put into a store. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WriteReportInput } from '../../src/contracts/activities.ts';
import type { ArtifactRef } from '../../src/contracts/artifacts.ts';
import type { CampaignSpec } from '../../src/contracts/campaign-spec.ts';
import type { InputRow, LossPoint, Prediction, TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import type { RoundSummary } from '../../src/contracts/state.ts';
import { buildDataset } from '../../src/dataset/build.ts';
import { createRandom } from '../../src/dataset/random.ts';
import { evaluate } from '../../src/evaluation/evaluate.ts';
import { putJson, putRows } from '../../src/store/jsonl.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { answer, reader, request, row } from './rows.ts';

const WORDS = 'battery camera plot acting screen story price sound cast ending manual charger scene script button music speed lens menu joke warm dull sharp slow bright weak rich flat loud clean'.split(' ');
const LABELS = ['negative', 'positive'] as const;

/** Sentences, teacher answers and student answers drawn at random with the given rates of being right. */
export async function realisticReport(store: ArtifactStore, folder: string, spec: CampaignSpec, developmentLosses: readonly (readonly [step: number, lossNats: number])[] = []): Promise<WriteReportInput> {
  const measured = new Map(developmentLosses);
  const random = createRandom(11, 'report');
  const recorded: Record<string, TeacherAnswer> = {};
  const draw = (count: number): { readonly rows: InputRow[]; readonly requests: TeacherRequest[] } => {
    const rows = Array.from({ length: count }, () => {
      const text = Array.from({ length: 6 + Math.floor(random() * 9) }, () => WORDS[Math.floor(random() * WORDS.length)]).join(' ');
      return row(text, LABELS[random() < 0.55 ? 1 : 0]);
    });
    const requests = rows.map((entry) => {
      const asked = request(entry);
      const right = random() < 0.89;
      const sure = right ? 0.4 + 3.5 * random() : 0.2 + 1.6 * random();
      const margin = ((entry.gold === 'positive') === right ? sure : -sure) + 1.8;
      recorded[asked.id] = answer(margin > 0 ? 'positive' : 'negative', { labelLogProbs: [-Math.log1p(Math.exp(margin)), -Math.log1p(Math.exp(-margin))] });
      return asked;
    });
    return { rows, requests };
  };
  const predict = (rows: readonly InputRow[], rate: number): Promise<ArtifactRef> =>
    putRows(store, 'predictions', rows.map((entry): Prediction => ({
      id: entry.id, output: (random() < rate) === (entry.gold === 'positive') ? 'positive' : 'negative', promptTokens: 31, completionTokens: 1,
    })));
  const specRef = await putJson(store, 'spec', spec);
  const base = { campaign: spec.name, spec: specRef };
  const answers = reader(recorded);
  const [development, test, first, second] = [draw(200), draw(400), draw(480), draw(240)] as const;
  const data = {
    development: await putRows(store, 'rows', development.rows), test: await putRows(store, 'rows', test.rows), pool: await putRows(store, 'rows', first.rows),
    poolRows: 480, developmentRows: 200, testRows: 400,
  };
  const requests = [await putRows(store, 'requests', first.requests), await putRows(store, 'requests', second.requests)];
  const rounds: RoundSummary[] = [];
  const developmentEvaluations: ArtifactRef[] = [];
  const developmentRequests = await putRows(store, 'requests', development.requests);
  for (const round of [1, 2]) {
    const built = await buildDataset({ store, answers }, { ...base, round, data, requests: requests.slice(0, round) });
    const calibration = built.calibration === undefined ? {} : { calibration: built.calibration };
    const evaluated = await evaluate({ store, answers }, { ...base, rows: data.development, teacherRequests: developmentRequests, student: await predict(development.rows, round === 1 ? 0.86 : 0.91), ...calibration });
    developmentEvaluations.push(evaluated.evaluation);
    const steps = Math.ceil(built.accepted / 8) * 2;
    const curve = Array.from({ length: steps }, (_, step): LossPoint => ({
      epoch: step < steps / 2 ? 0 : 1, step, lossNats: 0.22 + 1.9 * Math.exp(-step / 14) + 0.25 * (random() - 0.5) * (0.4 + Math.exp(-step / 25)), learningRate: 1e-3 * (1 - step / steps), tokens: 300, gradientNorm: 1,
      ...(measured.has(step) ? { developmentNats: measured.get(step) as number } : {}),
    }));
    rounds.push({
      round, requests: round === 1 ? 480 : 240, accepted: built.accepted, rejected: built.rejectedCount, rejectedRows: built.rejected, dataset: built.dataset,
      checkpoint: await store.put('checkpoint', `weights of round ${round}`), lossCurve: await putRows(store, 'loss-curve', curve),
      lossFirstNats: curve[0]?.lossNats ?? 0, lossLastNats: curve.at(-1)?.lossNats ?? 0,
      teacherScore: evaluated.teacherScore, studentScore: evaluated.studentScore, retention: evaluated.retention,
      stageMs: { ...(round === 2 ? { selecting: 41_000 } : {}), sampling: round === 1 ? 92_000 : 44_000, filtering: 900, training: round === 1 ? 131_000 : 204_000, evaluating: 23_500 },
    });
  }
  const tested = await evaluate({ store, answers }, {
    ...base, rows: data.test, teacherRequests: await putRows(store, 'requests', test.requests), student: await predict(test.rows, 0.905), untuned: await predict(test.rows, 0.71),
    ...(spec.teacher.calibration === 'prior' ? { calibration: await putJson(store, 'calibration', { labels: LABELS, priorLogProbs: [-1.94, -0.16], rows: 480 }) } : {}),
  });
  const adapter = join(folder, 'adapter');
  await mkdir(adapter);
  await writeFile(join(adapter, 'adapter_config.json'), '{}');
  await writeFile(join(adapter, 'adapter_model.safetensors'), Buffer.alloc(3_700_000));
  const { rows, teacherScore, studentScore, untunedScore, retention } = tested;
  const speed = { parameters: 134_515_008, sizeBytes: 98_362_432 };
  return {
    ...base, rounds, bestRound: 2, data, developmentEvaluations, testEvaluation: tested.evaluation, adapter: await store.putFolder('adapter', adapter),
    spending: { usd: 0, tokens: 151_204, callsBought: 1_320, callsReused: 60, callsRepeated: 0 },
    stopReason: 'max-rounds', startedAtMs: Date.UTC(2026, 5, 21, 9, 2), finishedAtMs: Date.UTC(2026, 5, 21, 9, 14, 37),
    test: { rows, teacherScore, studentScore, untunedScore: untunedScore ?? 0, retention },
    speed: {
      rows: [
        { who: 'teacher, prompt not cached', msMedian: 412, msP95: 455, promptTokens: 118, ...speed },
        { who: 'teacher, prompt cached', msMedian: 118, msP95: 131, promptTokens: 118, ...speed },
        { who: 'student', msMedian: 121, msP95: 140, promptTokens: 31, ...speed },
      ],
    },
  };
}
