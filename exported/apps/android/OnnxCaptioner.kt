// A photo's caption by an ONNX bundle with onnxruntime: implementation("com.microsoft.onnxruntime:onnxruntime-android:1.22.0")
//
//     val captioner = OnnxCaptioner(File(context.filesDir, "bundle"))      // the bundle's files, copied from the assets
//     captioner.caption(rgb, bitmap.width, bitmap.height) { word -> ... }  // rgb: see Bitmaps.kt
package captioner

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer

class OnnxCaptioner(bundle: File) {
    // Load. In an app, once.
    private val env = OrtEnvironment.getEnvironment()
    private val options = OrtSession.SessionOptions().apply { setIntraOpNumThreads(1) }
    private val encoder = env.createSession(File(bundle, "encoder.onnx").path, options)
    private val decoder = env.createSession(File(bundle, "decoder.onnx").path, options)
    private val maxLength = 50 // shape.max_length in manifest.json
    private val words = File(bundle, "vocabulary.txt").readLines()
    private val size = (encoder.inputInfo.getValue("image").info as TensorInfo).shape[1].toInt()

    fun caption(rgb: ByteArray, width: Int, height: Int, say: (String) -> Unit) {
        // Pixels, (1, height, width, 3).
        val pixels = ByteBuffer.wrap(resized(rgb, width, height, size))
        val shape = longArrayOf(1, size.toLong(), size.toLong(), 3)
        OnnxTensor.createTensor(env, pixels, shape, OnnxJavaType.UINT8).use { image ->
            // Encode, once a photo.
            encoder.run(mapOf("image" to image)).use { cross -> loop(cross, say) }
        }
    }

    // Loop: a token in, the likeliest next one out, and what the decoder keeps of the words before.
    private fun loop(cross: OrtSession.Result, say: (String) -> Unit) {
        var token = words.indexOf("[START]")
        val end = words.indexOf("[END]")
        var last: OrtSession.Result? = null
        try {
            for (position in 0 until maxLength - 1) { // the last token is [END]
                val inputs = HashMap<String, OnnxTensor>()
                inputs["tokens"] = OnnxTensor.createTensor(env, IntBuffer.wrap(intArrayOf(token)), longArrayOf(1))
                inputs["position"] = OnnxTensor.createTensor(env, IntBuffer.wrap(intArrayOf(position)), longArrayOf())
                for ((name, info) in decoder.inputInfo) {
                    if (name.startsWith("cross_")) inputs[name] = cross.get(name).get() as OnnxTensor
                    if (name.startsWith("self_")) inputs[name] = last?.get(name.replace("self_", "next_"))?.get() as OnnxTensor?
                        ?: nothing((info.info as TensorInfo).shape)
                }
                val next = decoder.run(inputs)
                last?.close()
                last = next
                val logits = (next.get("logits").get() as OnnxTensor).floatBuffer
                token = words.indices.reduce { best, i -> if (logits.get(i) > logits.get(best)) i else best }
                // Words.
                if (token == end) return
                say(words[token])
            }
        } finally {
            last?.close()
        }
    }

    /** What is kept of no word yet: (1, 1, 0, units), or keys or values (1, heads, 0, key_dim). */
    private fun nothing(shape: LongArray) =
        OnnxTensor.createTensor(env, FloatBuffer.allocate(0), longArrayOf(1, shape[1], 0, shape[3]))
}
