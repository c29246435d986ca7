/** A store in a folder of its own, specs and answers for tests of the stages that work on rows. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { campaignSpecSchema } from '../../src/contracts/campaign-spec.ts';
import type { CampaignSpec, CampaignSpecInput } from '../../src/contracts/campaign-spec.ts';
import { StillhouseError } from '../../src/contracts/errors.ts';
import type { InputRow, TeacherAnswer, TeacherRequest } from '../../src/contracts/records.ts';
import { readAnswer } from '../../src/dataset/answers.ts';
import type { AnswerReader } from '../../src/dataset/answers.ts';
import { rowId } from '../../src/dataset/text.ts';
import { createFileStore } from '../../src/store/file-store.ts';
import type { ArtifactStore } from '../../src/store/store.ts';
import { temporaryFolder } from './folder.ts';

export interface Workspace {
  readonly folder: string;
  readonly store: ArtifactStore;
  /** Writes a file and gives its path. */
  readonly file: (name: string, text: string) => Promise<string>;
}

export function workspace(): Workspace {
  const folder = temporaryFolder();
  return {
    folder,
    store: createFileStore(join(folder, 'store')),
    file: async (name, text) => {
      const path = join(folder, name);
      await writeFile(path, text);
      return path;
    },
  };
}

/** A label task over a pool file, everything else at its default. */
export function labelSpec(changes: Partial<CampaignSpecInput> = {}): CampaignSpec {
  return campaignSpecSchema.parse({
    name: 'test',
    task: { description: 'Sentiment.', instruction: 'Review: {input}\nSentiment:', output: { kind: 'label', labels: ['negative', 'positive'] } },
    teacher: { provider: 'local', model: 'teacher' },
    sampling: { source: { kind: 'inputs', dataset: 'pool.jsonl' }, rows: 10 },
    student: { model: 'student' },
    evaluation: { source: { kind: 'dataset', dataset: 'gold.jsonl' }, developmentRows: 2, testRows: 2, scorer: { kind: 'label' } },
    ...changes,
  } satisfies CampaignSpecInput);
}

export const row = (input: string, gold?: string): InputRow => ({ id: rowId(input), input, origin: 'test:1', ...(gold === undefined ? {} : { gold }) });

export function request(inputRow: InputRow, labels: readonly string[] = ['negative', 'positive']): TeacherRequest {
  return {
    id: `request-${inputRow.id}`, purpose: 'train', sampleIndex: 0, row: inputRow,
    task: { kind: 'label', messages: [{ role: 'user', content: inputRow.input }], labels, parameters: { maxTokens: 8, temperature: 0 } },
  };
}

export function answer(text: string, changes: Partial<TeacherAnswer> = {}): TeacherAnswer {
  return { text, finishReason: 'stop', usage: { promptTokens: 10, cachedPromptTokens: 0, completionTokens: 2 }, costUsd: 0, latencyMs: 1, model: 'teacher', ...changes };
}

/** Answers by request id; NOT_FOUND where one is missing, as the ledger's reader. */
export function reader(answers: Readonly<Record<string, TeacherAnswer>>): AnswerReader {
  return async (_spec, requests) => requests.map((asked) => {
    const found = answers[asked.id];
    if (found === undefined) throw new StillhouseError('NOT_FOUND', `expected a recorded answer to ${asked.id}, got none`);
    return readAnswer(asked, found);
  });
}
