/** Do teacher and student read the same? Distributions and hidden states are compared token by token. */
import { StillhouseError } from '../contracts/errors.ts';
import type { ChatTokenizer } from '../lm/tokenizer.ts';
import type { TrainingSample } from './packing.ts';
import { tokenizeSamples } from './samples.ts';
import { requireSameVocabulary } from './soft-targets/vocabulary.ts';

export interface Reader {
  /** For messages. */
  readonly name: string;
  readonly tokenizer: ChatTokenizer;
}

/**
 * BAD_INPUT that says whether vocabularies or chat templates differ, and for a template the first row that shows it.
 * `rows`: the dataset as JSONL, `samples`: the same as the student reads it. A teacher without a template reads what it is given.
 */
export function requireSameReading(teacher: Reader, student: Reader, rows: string, samples: readonly TrainingSample[]): void {
  const vocabularyOf = ({ name, tokenizer }: Reader) => ({ name, tokens: tokenizer.tokens });
  requireSameVocabulary(vocabularyOf(teacher), vocabularyOf(student));
  if (!teacher.tokenizer.hasChatTemplate) return;
  tokenizeSamples(rows, teacher.tokenizer, {}).forEach(({ id, ids, responseStart }, i) => {
    const sample = samples[i];
    if (sample === undefined) throw new StillhouseError('INTERNAL', `dataset: expected ${samples.length} rows, got more`);
    const first = sample.ids.findIndex((token, at) => token !== ids[at]);
    if (first < 0 && ids.length === sample.ids.length && responseStart === sample.responseStart) return;
    const at = first < 0 ? Math.min(ids.length, sample.ids.length) : first;
    const shown = ({ tokenizer }: Reader, tokens: readonly number[]): string => (at < tokens.length ? JSON.stringify(tokenizer.tokenText(tokens[at] as number)) : 'nothing');
    throw new StillhouseError(
      'BAD_INPUT',
      `dataset, row ${id}: expected the chat templates of ${teacher.name} and ${student.name} to give the same tokens, got ${ids.length} and ${sample.ids.length} with answers from ${responseStart} and ${sample.responseStart}; token ${at} is ${shown(teacher, ids)} and ${shown(student, sample.ids)}`,
    );
  });
}
