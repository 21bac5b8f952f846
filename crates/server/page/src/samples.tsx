// What an empty conversation shows: examples that are asked with one click.

import type { Props } from "./app.tsx";
import type { Sample } from "./media.ts";

export function Samples({ conversation }: Props) {
  const isOff = conversation.server !== "ready" || conversation.isRunning || conversation.model === "";
  return (
    <div class="empty">
      <h2>Ask about a picture</h2>
      <p>
        Drop, paste or choose pictures and clips, and ask what is in them. They go to this server and nowhere else. Or
        begin with an example:
      </p>
      <ul class="cards">
        {conversation.samples.map((sample) => (
          <li key={sample.title}>
            <button type="button" class="card" disabled={isOff} onClick={() => void conversation.trySample(sample)}>
              <Thumbnail sample={sample} />
              <span class="card-text">
                <span class="card-title">{sample.title}</span>
                <span class="card-prompt">{sample.prompt}</span>
                {sample.beyond === conversation.model && (
                  <span class="card-beyond">The demo model has not learned this: it takes real weights.</span>
                )}
              </span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** The first picture; of a clip the one in its middle. */
function Thumbnail({ sample }: { sample: Sample }) {
  const file = sample.files[sample.fps === undefined ? 0 : Math.floor(sample.files.length / 2)];
  return file ? <img src={`page/samples/${file}`} alt="" loading="lazy" /> : null;
}
