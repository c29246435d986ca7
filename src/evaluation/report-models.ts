/** What a report says about models, from the files that they are. */
import { stat } from 'node:fs/promises';
import type { Assets } from '../assets/assets.ts';
import { sha256OfFile } from '../assets/files.ts';
import type { ReportModels } from './report.ts';

/** Local models by their verified files, which a campaign has fetched by the time of its report; of an endpoint only that its provider's terms bind. */
export function createReportModels(assets: Pick<Assets, 'model'>): ReportModels {
  return {
    facts: async ({ provider, model }) => {
      if (provider === 'openai') return { license: 'terms of the provider' };
      const { path, license } = await assets.model(model);
      const entry = await stat(path);
      return entry.isFile() ? { license, sha256: await sha256OfFile(path), sizeBytes: entry.size } : { license };
    },
  };
}
