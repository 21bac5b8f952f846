// The picture, with the places of an answer drawn over it.

import { useEffect, useRef, useState } from "preact/hooks";

import type { Props } from "./app.tsx";
import { colour } from "./palette.ts";
import type { Region } from "./regions.ts";
import type { Attachment } from "./request.ts";
import { hit, placed, type Size } from "./scale.ts";

/** Small pictures are enlarged at most so much. */
const LARGEST_ZOOM = 4;

export function Viewer({ conversation }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const stage = useRef<HTMLDivElement>(null);
  const [image, setImage] = useState<{ source: string; element: HTMLImageElement } | null>(null);
  const [frame, setFrame] = useState(0);
  const [, setRoom] = useState(0);

  const picture = conversation.shownPicture;
  const turn = conversation.shownTurn;
  const isOfTurn = conversation.pictures(turn?.id).some((one) => one.id === picture?.id);
  const regions = isOfTurn ? (turn?.answer.regions ?? []) : [];
  const media = conversation.seen(turn, picture?.id ?? null);
  const size = shownSize(picture, media?.original);
  const source = picture?.data[Math.min(frame, picture.data.length - 1)] ?? "";
  const pointed = conversation.pointed?.turn === turn?.id ? (conversation.pointed?.region ?? null) : null;
  const places = regions.map((region) => placed(region, media, size));

  const { moment } = conversation;
  useEffect(() => setFrame(0), [picture?.id]);
  useEffect(() => {
    if (!moment || picture?.kind !== "clip") return;
    setFrame(Math.min(Math.round(moment.seconds * (picture.fps ?? 2)), picture.data.length - 1));
  }, [moment]);
  useEffect(() => {
    if (!picture?.isShown) return setImage(null);
    const element = new Image();
    let isWanted = true;
    element.onload = () => isWanted && setImage({ source, element });
    element.src = source;
    return () => {
      isWanted = false;
    };
  }, [source, picture?.isShown]);
  useEffect(() => {
    const observer = new ResizeObserver(() => setRoom((stage.current?.clientWidth ?? 0) + window.innerHeight / 10_000));
    if (stage.current) observer.observe(stage.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (!canvas.current || !stage.current) return;
    const tallest = window.innerHeight * (window.innerWidth < 900 ? 0.3 : 0.68);
    const zoom = Math.min(stage.current.clientWidth / size.width, tallest / size.height, LARGEST_ZOOM);
    draw(canvas.current, image?.element ?? null, size, zoom, regions, places, pointed);
  });

  if (!picture) return null;
  const all = [...conversation.pictures(), ...conversation.draftAttachments];
  const point = (event: MouseEvent) => {
    if (!canvas.current || !turn) return;
    const bounds = canvas.current.getBoundingClientRect();
    const zoom = bounds.width / size.width;
    const found = hit(places, (event.clientX - bounds.left) / zoom, (event.clientY - bounds.top) / zoom, 6 / zoom);
    if (found !== pointed) conversation.set({ pointed: found === null ? null : { turn: turn.id, region: found } });
  };
  const described = regions.length === 0 ? "" : `, with ${regions.length} marked: ${regions.map(({ label }) => label).join(", ")}`;
  return (
    <section class="viewer" aria-label="Picture">
      <div class="stage" ref={stage}>
        <canvas
          ref={canvas}
          role="img"
          aria-label={`${picture.name}${described}`}
          onMouseMove={point}
          onMouseLeave={() => conversation.set({ pointed: null })}
        />
      </div>
      <p class="caption">
        {picture.name} · {size.width}×{size.height}
        {!picture.isShown && " · this browser can't show it; the server gets it as it is"}
      </p>
      {picture.kind === "clip" && (
        <div class="frames">
          <label for="frame">
            Frame {Math.min(frame, picture.data.length - 1) + 1} of {picture.data.length},{" "}
            {(frame / (picture.fps ?? 2)).toFixed(1)} s
          </label>
          <input
            id="frame"
            type="range"
            min="0"
            max={picture.data.length - 1}
            value={frame}
            onInput={(event) => setFrame(Number(event.currentTarget.value))}
          />
        </div>
      )}
      {all.length > 1 && (
        <ul class="strip" aria-label="All pictures">
          {all.map((one) => (
            <li key={one.id}>
              <button
                type="button"
                class="thumbnail"
                aria-label={one.name}
                aria-pressed={one.id === picture.id}
                onClick={() => conversation.set({ picture: one.id })}
              >
                {one.isShown ? <img src={one.data[0]} alt="" /> : <span class="no-picture">{one.name}</span>}
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

/** The upright picture's own size, as the server tells it or as the browser found it. */
function shownSize(picture: Attachment | undefined, original: Size | undefined): Size {
  if (picture && picture.width > 0) return { width: picture.width, height: picture.height };
  return original ?? { width: 400, height: 300 };
}

function draw(
  canvas: HTMLCanvasElement,
  image: HTMLImageElement | null,
  size: Size,
  zoom: number,
  regions: Region[],
  places: number[][],
  pointed: number | null,
): void {
  const density = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(size.width * zoom));
  const height = Math.max(1, Math.round(size.height * zoom));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(density, density);
  context.imageSmoothingQuality = "high";
  if (image) context.drawImage(image, 0, 0, width, height);
  else {
    context.fillStyle = "#888";
    context.fillRect(0, 0, width, height);
  }
  const order = regions.map((_, index) => index).sort((one, other) => Number(one === pointed) - Number(other === pointed));
  for (const index of order) {
    const region = regions[index];
    const at = places[index]?.map((value) => value * zoom);
    if (!region || !at) continue;
    context.globalAlpha = pointed === null || pointed === index ? 1 : 0.3;
    mark(context, at, colour(index), pointed === index);
    name(context, at, region.label, colour(index), width);
  }
  context.globalAlpha = 1;
}

/** A line in the region's colour between two fine ones, to be seen on every ground. */
function mark(context: CanvasRenderingContext2D, at: number[], own: string, isPointed: boolean): void {
  const [x = 0, y = 0, right, bottom] = at;
  const path = new Path2D();
  if (right === undefined || bottom === undefined) path.arc(x, y, isPointed ? 9 : 7, 0, 2 * Math.PI);
  else path.rect(x, y, right - x, bottom - y);
  if (isPointed || right === undefined) {
    const alpha = context.globalAlpha;
    context.globalAlpha = right === undefined ? alpha : 0.25;
    context.fillStyle = own;
    context.fill(path);
    context.globalAlpha = alpha;
  }
  context.lineWidth = 5;
  context.strokeStyle = "#ffffffcc";
  context.stroke(path);
  context.lineWidth = 3;
  context.strokeStyle = own;
  context.stroke(path);
}

function name(context: CanvasRenderingContext2D, at: number[], label: string, own: string, width: number): void {
  if (label === "") return;
  const [x = 0, y = 0, right] = at;
  const text = label.length > 28 ? `${label.slice(0, 27)}…` : label;
  context.font = "600 12px system-ui, sans-serif";
  const wide = context.measureText(text).width + 10;
  const left = Math.max(0, Math.min(right === undefined ? x + 11 : x - 1.5, width - wide));
  // Above the box, or inside of it at the upper edge of the picture.
  const top = right === undefined ? Math.max(0, y - 9) : y < 19 ? y + 1.5 : y - 18;
  context.fillStyle = own;
  context.fillRect(left, top, wide, 18);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + 5, top + 9.5);
}
