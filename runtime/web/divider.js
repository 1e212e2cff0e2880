// The picture before and after on one canvas, for two pictures and for a side-by-side clip alike: divider, zoom, pan.

const LARGEST_ZOOM = 16 // device pixels for each of the picture's
const NEAR_PX = 28

export default function ({ data, parentElement }) {
  const view = parentElement.querySelector(".deblur-view")
  if (view.dataset.key === data.key) return undefined
  view.dataset.key = data.key
  const [stage, canvas, line] = [".deblur-stage", ".deblur-picture", ".deblur-line"].map((name) => view.querySelector(name))
  const seek = view.querySelector("input")
  const context = canvas.getContext("2d")
  let shot = null // {width, height, draw(side, source rectangle, target rectangle)}
  let split = 0.5
  let zoom = 1 // of what fits
  let centre = [0.5, 0.5]

  const fitted = () => canvas.width / shot.width // device pixels for each of the picture's
  const largest = () => Math.max(1, LARGEST_ZOOM / fitted())

  function draw() {
    if (!shot || !canvas.width) return
    const [width, height] = [shot.width / zoom, shot.height / zoom]
    const [left, top] = [shot.width * centre[0] - width / 2, shot.height * centre[1] - height / 2]
    const [before, after] = [split, 1 - split]
    context.imageSmoothingEnabled = fitted() * zoom < 2
    context.clearRect(0, 0, canvas.width, canvas.height)
    if (before > 0) shot.draw(0, [left, top, width * before, height], [0, 0, canvas.width * before, canvas.height])
    if (after > 0) {
      const at = canvas.width * before
      shot.draw(1, [left + width * before, top, width * after, height], [at, 0, canvas.width - at, canvas.height])
    }
    line.style.left = `${100 * split}%`
    line.setAttribute("aria-valuenow", Math.round(100 * split))
    view.querySelector(".deblur-zoom").textContent = `${Math.round(100 * fitted() * zoom / devicePixelRatio)} %`
    canvas.dataset.drawn = Number(canvas.dataset.drawn || 0) + 1
  }

  function resize() {
    if (!shot) return
    const width = Math.min(view.clientWidth, (0.7 * innerHeight * shot.width) / shot.height)
    stage.style.width = `${width}px`
    stage.style.height = `${(width * shot.height) / shot.width}px`
    canvas.width = Math.round(width * devicePixelRatio)
    canvas.height = Math.round((width * devicePixelRatio * shot.height) / shot.width)
    draw()
  }

  function moveTo(x, y) { // shares of the picture, kept so that no border shows
    const half = 0.5 / zoom
    centre = [x, y].map((each) => Math.min(1 - half, Math.max(half, each)))
    canvas.style.touchAction = zoom > 1 ? "none" : "pan-y"
    draw()
  }

  function zoomTo(wanted, at = [0.5, 0.5]) { // `at`: place on the canvas that stays where it is
    const next = Math.min(largest(), Math.max(1, wanted))
    const [x, y] = centre.map((each, axis) => each + (at[axis] - 0.5) * (1 / zoom - 1 / next))
    zoom = next
    moveTo(x, y)
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect()
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
  }
  const divide = (x) => { split = Math.min(1, Math.max(0, x)); draw() }
  const fingers = new Map()
  let panning = false

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId)
    const [x] = place(event)
    fingers.set(event.pointerId, place(event))
    panning = zoom > 1 && Math.abs(x - split) * canvas.clientWidth > NEAR_PX
    if (!panning && fingers.size === 1) divide(x)
  }
  canvas.onpointermove = (event) => {
    if (!fingers.has(event.pointerId)) return
    const [was, now] = [fingers.get(event.pointerId), place(event)]
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1]
      const apart = (each) => Math.hypot((each[0] - other[0]) * canvas.clientWidth, (each[1] - other[1]) * canvas.clientHeight)
      zoomTo((zoom * apart(now)) / Math.max(1, apart(was)), other)
    } else if (panning) {
      moveTo(centre[0] - (now[0] - was[0]) / zoom, centre[1] - (now[1] - was[1]) / zoom)
    } else {
      divide(now[0])
    }
    fingers.set(event.pointerId, now)
  }
  canvas.onpointerup = canvas.onpointercancel = (event) => fingers.delete(event.pointerId)
  canvas.ondblclick = (event) => zoomTo(zoom > 1 ? 1 : 4, place(event))
  const onWheel = (event) => { // with Ctrl, as which two fingers on a touchpad arrive; alone it scrolls the page
    if (!event.ctrlKey) return
    event.preventDefault()
    zoomTo(zoom * 2 ** (-event.deltaY / 100), place(event))
  }
  canvas.addEventListener("wheel", onWheel, { passive: false })
  line.onkeydown = (event) => {
    const step = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key]
    if (!step) return
    event.preventDefault()
    divide(split + step)
  }
  view.onclick = (event) => {
    const wanted = event.target.dataset.do
    if (wanted === "in") zoomTo(zoom * 2)
    if (wanted === "out") zoomTo(zoom / 2)
    if (wanted === "fit") zoomTo(1)
  }

  const loaded = async (url) => {
    const image = new Image()
    image.src = url
    await image.decode()
    return image
  }

  async function showPictures() {
    const images = await Promise.all([loaded(data.before), loaded(data.after)])
    const [{ naturalWidth: width, naturalHeight: height }] = images
    shot = { width, height, draw: (side, from, to) => context.drawImage(images[side], ...from, ...to) }
    resize()
  }

  let video = null
  async function showVideo() {
    const blob = await (await fetch(data.video)).blob()
    video = Object.assign(document.createElement("video"), {
      muted: true, loop: true, playsInline: true, src: URL.createObjectURL(blob),
    })
    const [play] = [view.querySelector("[data-do=play]")]
    play.hidden = seek.hidden = false
    play.onclick = () => (video.paused ? video.play() : video.pause())
    seek.oninput = () => { video.currentTime = seek.value * video.duration }
    video.onplay = video.onpause = () => { play.textContent = video.paused ? "Play" : "Pause" }
    video.onloadeddata = () => {
      const [width, height] = [video.videoWidth / 2, video.videoHeight]
      const draw = (side, [x, y, w, h], to) => context.drawImage(video, x + side * width, y, w, h, ...to)
      shot = { width, height, draw }
      resize()
    }
    video.onseeked = draw
    const onFrame = () => {
      seek.value = video.currentTime / video.duration
      draw()
      video.requestVideoFrameCallback(onFrame)
    }
    video.requestVideoFrameCallback(onFrame)
    await video.play()
  }

  const failed = (error) => { view.dataset.failed = stage.textContent = `This browser cannot show it: ${error.message}` }
  ;(data.video ? showVideo() : showPictures()).catch(failed)
  const observer = new ResizeObserver(resize)
  observer.observe(view)
  return () => {
    observer.disconnect()
    if (video) {
      video.pause()
      URL.revokeObjectURL(video.src)
    }
  }
}
