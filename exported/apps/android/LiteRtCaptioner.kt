// A photo's caption by a TFLite bundle with LiteRT: implementation("com.google.ai.edge.litert:litert:1.4.0")
//
//     val captioner = LiteRtCaptioner(File(context.filesDir, "bundle"))    // the bundle's files, copied from the assets
//     captioner.caption(rgb, bitmap.width, bitmap.height) { word -> ... }  // rgb: see Bitmaps.kt
package captioner

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

class LiteRtCaptioner(bundle: File) {
    // Load. In an app, once.
    private val encoder = Interpreter(File(bundle, "encoder.tflite"), Interpreter.Options().setNumThreads(1))
    private val decoder = Interpreter(File(bundle, "decoder.tflite"), Interpreter.Options().setNumThreads(1))
    private val maxLength = 50 // shape.max_length in manifest.json
    private val words = File(bundle, "vocabulary.txt").readLines()
    private val signature = "serving_default"
    private val size = encoder.getInputTensorFromSignature("image", signature).shape()[1]

    fun caption(rgb: ByteArray, width: Int, height: Int, say: (String) -> Unit) {
        // Pixels, (1, height, width, 3).
        val pixels = ByteBuffer.allocateDirect(size * size * 3).put(resized(rgb, width, height, size))
        pixels.rewind()
        // Encode, once a photo.
        val cross = encoder.getSignatureOutputs(signature).toList().associateWith { name ->
            buffer(encoder.getOutputTensorFromSignature(name, signature).numBytes())
        }
        encoder.runSignature(mapOf<String, Any>("image" to pixels), cross.toMutableMap<String, Any>(), signature)
        // Loop: a token in, the likeliest next one out, and what the decoder keeps of the words before.
        val outputs = decoder.getSignatureOutputs(signature).toList().associateWith { name ->
            buffer(decoder.getOutputTensorFromSignature(name, signature).numBytes())
        }.toMutableMap()
        val cache = outputs.keys.filter { it.startsWith("next_") }.associateWith { buffer(outputs.getValue(it).capacity()) }
            .toMutableMap()
        var token = words.indexOf("[START]")
        for (position in 0 until maxLength - 1) { // the last token is [END]
            val inputs = HashMap<String, Any>(cross)
            inputs["tokens"] = intArrayOf(token)
            inputs["position"] = buffer(4).putInt(0, position)
            for ((name, values) in cache) inputs[name.replace("next_", "self_")] = values
            (inputs.values + outputs.values).forEach { (it as? ByteBuffer)?.rewind() }
            decoder.runSignature(inputs, outputs.toMutableMap<String, Any>(), signature)
            for (name in cache.keys.toList()) cache[name] = outputs.put(name, cache.getValue(name))!! // they change places
            val logits = outputs.getValue("logits")
            token = words.indices.reduce { best, i -> if (logits.getFloat(4 * i) > logits.getFloat(4 * best)) i else best }
            // Words.
            if (words[token] == "[END]") return
            say(words[token])
        }
    }

    private fun buffer(bytes: Int) = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
}
