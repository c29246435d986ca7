/** A process that trains a hosted student, as a worker's activity would, to be killed by its tests. */
import type { FineTuneInput } from '../../src/contracts/activities.ts';
import { createLedger } from '../../src/ledger/sqlite-ledger.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import { openHostedTraining } from '../../src/training/hosted/hosted-training.ts';
import type { HostedTimings } from '../../src/training/hosted/provider.ts';
import { TEST_KEY } from './openai-server.ts';

export interface HostedProcessOrder {
  readonly input: FineTuneInput;
  readonly root: string;
  readonly ledgerPath: string;
  readonly timings: Partial<HostedTimings>;
}

const { input, root, ledgerPath, timings } = JSON.parse(process.argv[2] ?? '') as HostedProcessOrder;
const ledger = createLedger(ledgerPath);
const { trainer, job } = await openHostedTraining({ store: createFileStore(root), ledger, readSecret: () => TEST_KEY, timings }, input, 'run');
const result = await trainer.trainEpoch(job, {});
await ledger.close();
process.stdout.write(`${JSON.stringify(result)}\n`);
