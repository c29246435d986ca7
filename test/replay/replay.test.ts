import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { DeterminismViolationError } from '@temporalio/workflow';
import { Worker } from '@temporalio/worker';
import type { WorkflowBundleOption } from '@temporalio/worker';
import { historiesFolder, testBundle } from '../support/temporal.ts';

/** A history as `temporal workflow show --output json` and write-histories.ts write it. */
interface History {
  readonly events: readonly { readonly eventId: string; readonly activityTaskScheduledEventAttributes?: { readonly activityType: { readonly name: string } } }[];
}

const NAMES = ['cancelled', 'contestant', 'contestants', 'continued', 'finished', 'forked', 'paused', 'settings', 'steered', 'tournament'] as const;
const read = async (name: string): Promise<History> => JSON.parse(await readFile(join(historiesFolder, `${name}.json`), 'utf8')) as History;

describe('replay', () => {
  let workflowBundle: WorkflowBundleOption;
  before(async () => {
    workflowBundle = await testBundle();
  });

  /** The error of each replayed history, by name. */
  async function replay(histories: readonly { readonly name: string; readonly history: unknown }[]): Promise<ReadonlyMap<string, unknown>> {
    const errors = new Map<string, unknown>();
    for await (const { workflowId, error } of Worker.runReplayHistories({ workflowBundle }, histories.map(({ name, history }) => ({ workflowId: name, history })))) {
      errors.set(workflowId, error);
    }
    return errors;
  }

  it('accepts the saved histories of campaigns that continued, finished, were forked, paused, steered, set and cancelled, and of a tournament', async () => {
    const errors = await replay(await Promise.all(NAMES.map(async (name) => ({ name, history: await read(name) }))));
    assert.deepEqual([...errors.keys()].sort(), [...NAMES]);
    for (const [name, error] of errors) assert.equal(error, undefined, name);
  });

  it('refuses a history in which another activity was scheduled', async () => {
    const { events } = await read('finished');
    const altered = events.map((event) => {
      const scheduled = event.activityTaskScheduledEventAttributes;
      return scheduled?.activityType.name === 'exportStudent'
        ? { ...event, activityTaskScheduledEventAttributes: { ...scheduled, activityType: { name: 'buildDataset' } } }
        : event;
    });
    assert.notDeepEqual(altered, events);
    const error = (await replay([{ name: 'altered', history: { events: altered } }])).get('altered');
    assert.ok(error instanceof DeterminismViolationError, String(error));
  });
});

describe('protobufjs', () => {
  /** Reading JSON histories fails when the type descriptors of two copies meet. */
  it('is one copy for everything under @temporalio', () => {
    const scope = join(import.meta.dirname, '..', '..', 'node_modules', '@temporalio');
    const copies = readdirSync(scope).filter((name) => 'protobufjs' in (dependenciesOf(join(scope, name)) ?? {}))
      .map((name) => createRequire(join(scope, name, 'package.json')).resolve('protobufjs'));
    assert.ok(copies.length > 0, 'expected packages of @temporalio that depend on protobufjs, got none');
    assert.equal(new Set(copies).size, 1, `expected one copy, got ${[...new Set(copies)].join(', ')}`);
    assert.equal(copies[0], createRequire(import.meta.url).resolve('protobufjs'));
  });
});

function dependenciesOf(folder: string): Readonly<Record<string, string>> | undefined {
  return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { readonly dependencies?: Readonly<Record<string, string>> }).dependencies;
}
