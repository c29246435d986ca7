/** What the activities of each role need, built once a process and only when its role asks for it. */
import type { OrchestratorDeps } from '../activities/orchestrator.ts';
import type { TeacherStages } from '../activities/stages.ts';
import type { TrainerDeps } from '../activities/trainer.ts';
import { createAssets } from '../src/assets/create-assets.ts';
import { homePaths, readSecret } from '../src/config.ts';
import type { Config } from '../src/config.ts';
import { buildDataset } from '../src/dataset/build.ts';
import { prepareCampaign } from '../src/dataset/prepare.ts';
import { selectInputs } from '../src/dataset/select.ts';
import { evaluate } from '../src/evaluation/evaluate.ts';
import { planJudgements } from '../src/evaluation/judge.ts';
import { createReportModels } from '../src/evaluation/report-models.ts';
import { writeReport } from '../src/evaluation/report.ts';
import { planFirstQuestions, readFirstAnswers } from '../src/evaluation/first-questions.ts';
import { planStudentRequests, readStudentAnswers } from '../src/evaluation/hosted-student.ts';
import { measureSpeed } from '../src/evaluation/speed.ts';
import { runStudent } from '../src/evaluation/student.ts';
import { createLedger } from '../src/ledger/sqlite-ledger.ts';
import type { Ledger } from '../src/ledger/ledger.ts';
import { createModelHost } from '../src/lm/host.ts';
import { createFileStore } from '../src/store/file-store.ts';
import { createAnswerFinder, createAnswerReader } from '../src/teacher/answers.ts';
import { createTeacherDirectory } from '../src/teacher/directory.ts';
import { useOwnPrices } from '../src/teacher/price-table.ts';
import { planRequests } from '../src/teacher/plan.ts';
import { reassignRequests } from '../src/teacher/reassign.ts';
import { sampleBatch } from '../src/teacher/sample.ts';
import { importCompletions } from '../src/teacher/stored-completions.ts';
import { createTraitBook } from '../src/teacher/trait-book.ts';
import type { TraitBook } from '../src/teacher/trait-book.ts';
import { createSharedLimits } from '../src/teacher/shared-limits.ts';
import type { TeacherDirectory } from '../src/teacher/teacher.ts';
import { exportStudent } from '../src/training/export.ts';
import { exportHostedStudent } from '../src/training/hosted/folder.ts';
import { openHostedTraining, withTrainingBound } from '../src/training/hosted/hosted-training.ts';
import { lengthsBy } from '../src/training/lengths.ts';
import { createOnnxTrainer } from '../src/training/onnx-trainer.ts';

export interface Composition extends AsyncDisposable {
  orchestrator(): OrchestratorDeps;
  teacher(): TeacherStages;
  trainer(): TrainerDeps;
}

/** Dispose it to close the ledger and the models that are loaded. */
export function composeWorker(config: Config): Composition {
  const { cache, threads, executionProviders, precision, home } = config;
  useOwnPrices(config.prices);
  const paths = homePaths(home);
  const store = createFileStore(paths.artifacts);
  const assets = createAssets(config);
  const modelDeps = { assets, cache, executionProviders, ...(threads === undefined ? {} : { threads }) };
  const host = createModelHost({ ...modelDeps, precision });
  const resources = new AsyncDisposableStack();
  let opened: { readonly ledger: Ledger; readonly directory: TeacherDirectory; readonly traits: TraitBook } | undefined;
  const teaching = () => {
    if (opened !== undefined) return opened;
    const traits = resources.use(createTraitBook(paths.limits));
    opened = {
      traits,
      ledger: resources.adopt(createLedger(paths.ledger), (ledger) => ledger.close()),
      directory: resources.use(createTeacherDirectory({ host, assets, readSecret, limits: resources.use(createSharedLimits(paths.limits)), traits })),
    };
    return opened;
  };
  return {
    orchestrator() {
      const { ledger, directory, traits } = teaching();
      const answers = createAnswerReader({ ledger, directory });
      const models = createReportModels(assets);
      const lengths = lengthsBy(assets);
      return {
        store,
        stages: {
          prepareCampaign: (input, { signal, onProgress }) =>
            prepareCampaign({ store, assets, lengths }, input, { signal, onProgress: ({ doneBytes, totalBytes }) => onProgress({ done: doneBytes, total: totalBytes ?? doneBytes }) }),
          planRequests: (input) => planRequests({ store, directory, find: createAnswerFinder({ ledger, directory }) }, input),
          buildDataset: async (input) => withTrainingBound(store, input, await buildDataset({ store, answers, lengths }, input)),
          planJudgements: (input) => planJudgements({ store, answers, directory }, input),
          reassignRequests: (input) => reassignRequests({ store, ledger, directory }, input),
          planFirstQuestions: (input) => planFirstQuestions({ store, answers, directory, find: createAnswerFinder({ ledger, directory }) }, input),
          readFirstAnswers: (input) => readFirstAnswers({ store, answers, traits }, input),
          evaluate: (input) => evaluate({ store, answers }, input),
          selectInputs: (input) => selectInputs({ store }, input),
          writeReport: (input) => writeReport({ store, models }, input),
          planStudentRequests: (input) => planStudentRequests({ store, directory }, input),
          readStudentAnswers: (input) => readStudentAnswers({ store, answers }, input),
          exportHostedStudent: (input) => exportHostedStudent({ store }, input),
        },
      };
    },
    teacher() {
      const deps = { store, ...teaching() };
      return {
        sampleBatch: (input, { signal, onProgress, run }) => sampleBatch(deps, input, { signal, run, onProgress: (done, total) => onProgress({ done, total }) }),
        hostedTrainer: (input, run) => openHostedTraining({ store, ledger: deps.ledger, readSecret }, input, run),
        importCompletions: (input, { signal, onProgress }) => importCompletions({ ...deps, readSecret }, input, { signal, onProgress: (done, total) => onProgress({ done, total }) }),
      };
    },
    trainer() {
      const trainer = createOnnxTrainer({ store, ...modelDeps });
      return {
        store,
        trainer,
        stages: {
          runStudent: (input, options) => runStudent({ store, host, trainer }, input, options),
          measureSpeed: (input, options) => measureSpeed({ store, host, trainer }, input, options),
          exportStudent: (input) => exportStudent({ store, trainer, assets }, input),
        },
      };
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}
