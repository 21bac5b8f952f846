curl -X POST https://dashscope-intl.aliyuncs.com/api/v1/services/aigc/multimodal-generation/generation \
-H "Authorization: Bearer $DASHSCOPE_API_KEY" \
-H 'Content-Type: application/json' \
-d '{
    "model": "qwen-vl-max-latest",
    "input":{
        "messages":[
            {
                "role": "user",
                "content": [
                    {"image": "http://duguang-labelling.oss-cn-shanghai.aliyuncs.com/demo_ocr/receipt_zh_demo.jpg"},
                    {"text": "Extract the following from the image: ['InvoiceCode','InvoiceNumber','Destination','FuelSurcharge','Fare','TravelDate','DepartureTime','TrainNumber','SeatNumber'], please output in English and in JSON format, without the ```json``` code block."}
                ]
            }
        ]
    }
}'
