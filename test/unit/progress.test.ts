/** What a person sees of a running stage: through every epoch and batch, in as many columns as there are, and nothing that steers the terminal. */
import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import type { RunningActivity } from '../../src/client/campaigns.ts';
import type { ApiClient, CampaignResource } from '../../src/cli/api-client.ts';
import { createScreen, follow } from '../../src/cli/follow.ts';
import { StageClock, stageShare } from '../../src/cli/progress.ts';
import { cut, printable } from '../../src/cli/terminal.ts';

const training = (epoch: number, done: number): RunningActivity => ({ name: 'trainEpoch', attempt: 1, done, total: 10, epoch, epochs: 3, lossNats: 0.5, tokensPerSecond: 812.4 });

test('the share is of the whole stage: parts that are done, and what the running ones have done of theirs', () => {
  const near = (got: number, wanted: number): void => assert.ok(Math.abs(got - wanted) < 1e-9, `${got} against ${wanted}`);
  near(stageShare({ progress: 0, stageParts: 3 }, [training(1, 5)]), 0.5 / 3);
  near(stageShare({ progress: 1 / 3, stageParts: 3 }, [training(2, 5)]), 0.5);
  near(stageShare({ progress: 0 }, [training(1, 5)]), 0.5 / 3);
  near(stageShare({ progress: 0.5, stageParts: 12 }, [{ name: 'sampleBatch', attempt: 1, done: 8, total: 16 }, { name: 'sampleBatch', attempt: 1, done: 16, total: 16 }]), 0.5 + 1.5 / 12);
  near(stageShare({ progress: 0 }, [{ name: 'runStudent', attempt: 1, done: 3, total: 0 }, { name: 'evaluate', attempt: 1 }]), 0);
  near(stageShare({ progress: 1, stageParts: 2 }, [training(1, 10)]), 1);
});

test('pace and time left are measured over the stage, from where it was first seen', () => {
  const clock = new StageClock(0);
  const rows = (done: number): readonly RunningActivity[] => [{ name: 'sampleBatch', attempt: 1, done, total: 64 }];
  assert.deepEqual(clock.measure(0.5, rows(10), 0), [], 'nothing is known at first');
  assert.deepEqual(clock.measure(0.6, rows(60), 10_000), ['5.0 rows/s', 'about 40 s left']);
  assert.deepEqual(clock.measure(0.7, rows(30), 20_000), ['4.0 rows/s', 'about 30 s left'], 'the next batch counts from its own beginning');
  assert.deepEqual(new StageClock(0).measure(0.1, [training(1, 3)], 1_000), ['812 tokens/s']);
});

const state = { status: 'running', stage: 'training', round: 1, maxRounds: 1, budget: {}, spending: { usd: 0, tokens: 0, callsBought: 0, callsReused: 0, callsRepeated: 0 }, startedAtMs: 0 };
const resource = (progress: number, activity: RunningActivity, status = 'running'): CampaignResource => ({ campaign: 'x', status, rounds: [], state: { ...state, progress, stageParts: 3 }, activities: [activity] }) as unknown as CampaignResource;

test('every epoch has its lines off a terminal', async () => {
  const answers = [1, 2, 3].flatMap((epoch) => [3, 6, 9].map((done) => resource((epoch - 1) / 3, training(epoch, done))));
  answers.push(resource(1, training(3, 10), 'completed'));
  const lines: string[] = [];
  const screen = createScreen({ isTTY: false, write: (text) => Boolean(lines.push(text.trimEnd())) });
  mock.timers.enable({ apis: ['Date'], now: 0 });
  try {
    await follow({ get: () => { mock.timers.tick(20_000); return Promise.resolve(answers.length > 1 ? answers.shift() : answers[0]); } } as unknown as ApiClient, 'x', screen, AbortSignal.timeout(30_000));
  } finally {
    mock.timers.reset();
  }
  for (const epoch of [1, 2, 3]) assert.ok(lines.filter((line) => line.includes(`epoch ${epoch} of 3`)).length >= 2, `epoch ${epoch}:\n${lines.join('\n')}`);
  assert.match(lines.join('\n'), /training 63\.3 %, 812 tokens\/s, about 1 min \d+ s left, trainEpoch epoch 2 of 3, step 9\/10 loss 0\.500/);
});

describe('a terminal', () => {
  const shown = (columns: number, text: string): string => {
    let written = '';
    createScreen({ isTTY: true, columns, write: (part) => Boolean((written += part)) }).live(text);
    return written.replace('\r\u001b[2K', '');
  };
  test('gets as many columns of a live line as it has, however wide its characters are', () => {
    assert.equal(shown(10, '支付卡支付卡支付卡'), '支付卡支…');
    assert.equal(shown(11, '支付卡支付卡支付卡'), '支付卡支…');
    assert.equal(shown(6, '👩‍👩‍👧‍👦🙂🙂🙂'), '👩‍👩‍👧‍👦🙂…');
    assert.equal(shown(6, 'abcde'), 'abcde');
    assert.equal(shown(6, 'abcdef'), 'abcd…');
    for (const columns of [0, 1, 2, 3]) assert.ok(shown(columns, '支付 abc').length <= Math.max(0, columns - 1));
    assert.equal(cut('é'.repeat(5).normalize('NFD'), 3), 'éé…'.normalize('NFD'));
  });
  test('is steered by no text from outside', () => {
    const hostile = 'a\u001b[2Jb\u001b]0;title\u0007c\rd\u2028e\u009b31mf\u202eg\u0000h';
    assert.doesNotMatch(printable(hostile), /[\p{Cc}\u202e]/u);
    for (const isTTY of [true, false]) {
      let written = '';
      const screen = createScreen({ isTTY, columns: 80, write: (part) => Boolean((written += part)) });
      screen.line(hostile);
      screen.plain(hostile);
      screen.live(hostile);
      assert.doesNotMatch(written.replaceAll('\r\u001b[2K', '').replaceAll('\n', ''), /[\p{Cc}\u202e]/u);
      assert.equal(written.split('\n').length, isTTY ? 2 : 3, 'no line breaks but those of the lines');
    }
  });
});
